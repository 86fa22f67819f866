// Decode and prefill attention against the float64 reference.
#pragma once
#include "harness.cuh"

// Rules from one block to everything, with fractions that floor differently.
static std::vector<Rule> mixedRules(int heads, int seed) {
  static const Rule all[] = {{0, 1}, {64, 0}, {512, 0.25}, {-700, 0.5}, {128, 0.03}, {1024, 0.7}, {0, 0}, {300, 0.1}, {2048, 0}, {-64, 1}};
  std::vector<Rule> r(heads);
  for (int i = 0; i < heads; ++i) r[i] = all[(i * 7 + seed) % 10];
  return r;
}

template <class Kernel>
static Kernel* byHeadDim(const Cache& c, Kernel* d64, Kernel* d128, Kernel* d256) { return c.stored == 64 ? d64 : c.stored == 128 ? d128 : d256; }
static auto decodeKernel(const Cache& c) {
  return c.fp8 ? byHeadDim(c, decode_attention_fp8_64, decode_attention_fp8_128, decode_attention_fp8_256)
               : byHeadDim(c, decode_attention_64, decode_attention_128, decode_attention_256);
}

static void runDecode(const Device& dev, Cache& c, const Buffer<bf16>& q, Buffer<bf16>& out, int layer, float* ws, float* clear, char* plan, bool pdl) {
  const int64_t stride = decodePlanBytes(c.decodes, c.kv);
  launch(decodeKernel(c), decodeGrid(dev, c.hd, c.fp8), 160, decodeShared(dev, c.hd, c.fp8), 0, pdl, c.pool.p, plan + layer * stride, c.dTable.p, q.p, out.p, ws, clear, layer, c.kv,
         c.heads, c.maxBlocks, c.group, c.hd, decodeStages(dev, c.hd, c.fp8), 1 / sqrt((double)c.hd));
}

static void planDecode(const Device& dev, Cache& c, Buffer<char>& plan) {
  const int64_t stride = decodePlanBytes(c.decodes, c.kv);
  if (plan.n != (size_t)(stride * c.layers)) plan.alloc(stride * c.layers);
  launch(decode_plan, c.layers, 1024, 0, 0, false, c.dHeader.p, c.dSeqs.p, c.dRules.p, plan.p, stride, c.layers, c.kv, c.group, decodeGrid(dev, c.hd, c.fp8), c.hd);
}

static void checkDecode(const Device& dev, int hd, int kv, int group, std::vector<int> lengths, int layers, float scale, bool pdl, bool fp8 = false) {
  Cache c;
  c.fp8 = fp8;
  c.layers = layers; c.kv = kv; c.group = group; c.hd = hd;
  c.decodes = (int)lengths.size();
  for (int p = 0; p < 2; ++p)
    for (auto& r : mixedRules(layers * kv, p * 3 + hd)) c.rules.push_back(r);
  for (int i = 0; i < c.decodes; ++i)  // slots backwards, two plans, both meanings of a span
    c.seqs.push_back({c.decodes - 1 - i, i, 1, lengths[i] - 1, i % 2 * layers * kv, 32, i % 3 == 2 ? lengths[i] / BLOCK + 5 : 0, -1});
  layOut(c, hd + group);
  const int qh = kv * group;
  Buffer<bf16> q((size_t)c.decodes * qh * c.stored), out((size_t)c.rows * qh * hd);
  std::vector<bf16> hq(q.n, toBf16(0));
  for (size_t i = 0; i < q.n; ++i)
    if (fp8 || (int)(i % c.stored) < hd) hq[i] = toBf16(gauss(i + 77) * scale);
  q.put(hq);
  Buffer<char> plan;
  planDecode(dev, c, plan);
  const size_t words = decodeWorkspaceWords(dev, group, hd, fp8);
  Buffer<float> ws(words * 3);  // poisoned: not ready
  auto workspace = [&](int l) { return ws.p + (l == layers - 1 && layers % 2 ? 2 : l % 2) * words; };
  double total = 0, worst = 0, t, w;
  bool ok = true;
  for (int step = 0; step < 2; ++step)  // the second step finds what the first left
    for (int l = 0; l < layers; ++l) {
      out.poison();
      runDecode(dev, c, q, out, l, workspace(l), workspace((l + layers - 1) % layers), plan.p, pdl && l > 0);
      CK(cudaDeviceSynchronize());
      std::vector<RefRow> rows;
      for (int s = 0; s < c.decodes; ++s)
        for (int h = 0; h < qh; ++h) {
          const Seq& sq = c.seqs[s];
          const int head = l * kv + h / group;
          rows.push_back({sq.slot * c.heads + head, c.startBlock(sq, head, sq.start / BLOCK), sq.start, ((int64_t)s * qh + h) * c.stored, -1, ((int64_t)s * qh + h) * hd});
        }
      ok = compareRows(c, q.p, out, rows, t, w) && ok;
      total = std::max(total, t);
      worst = std::max(worst, w);
    }
  report(ok, format("decode%s hd=%d kv=%d group=%d sequences=%d longest=%d scale=%g: rel %.2e worst row %.2e", fp8 ? " fp8" : "", hd, kv, group, c.decodes,
                    *std::max_element(lengths.begin(), lengths.end()), scale, total, worst));
}

struct PrefillBuffers {
  Buffer<char> plan, workspace;
  int maxItems;
  int64_t stride;
};
static size_t partBytes(const Cache& c) { return c.stored == 64 ? PART_BYTES<64> : c.stored == 128 ? PART_BYTES<128> : PART_BYTES<256>; }
static void preparePrefill(const Device& dev, Cache& c, PrefillBuffers& b) {
  const int cuts = dev.sms - 1;
  b.maxItems = (int)roundUp(c.kv * ((c.tiles * c.group + 2) / 3 + c.prefills) + cuts, 8);
  b.stride = (int64_t)sizeof(PrefillHead) + (int64_t)sizeof(PrefillItem) * b.maxItems;
  b.plan.alloc(b.stride * c.layers);
  b.workspace.alloc(roundUp(64 + 8 * (size_t)b.maxItems + 2 * cuts * partBytes(c), 256));
  b.workspace.zero();
}
// The plan of a layer.
static PrefillHead headOf(const PrefillBuffers& b, int layer) {
  const auto bytes = b.plan.get();
  PrefillHead head;
  memcpy((void*)&head, bytes.data() + layer * b.stride, sizeof head);
  return head;
}
static std::vector<PrefillItem> itemsOf(const PrefillBuffers& b, int layer) {
  const auto bytes = b.plan.get();
  std::vector<PrefillItem> items(headOf(b, layer).items);
  memcpy((void*)items.data(), bytes.data() + layer * b.stride + sizeof(PrefillHead), items.size() * sizeof(PrefillItem));
  return items;
}
// Whether the runs of a layer hold all items, about equally many pages each.
static bool runsAreEven(const PrefillBuffers& b, int layer) {
  const PrefillHead head = headOf(b, layer);
  const auto items = itemsOf(b, layer);
  int64_t work = 0;
  for (auto& x : items) work += x.pages;
  int from = 0;
  for (int r = 0; r < head.runs; ++r) {
    int64_t pages = 0;
    for (int i = from; i < head.ends[r]; ++i) pages += items[i].pages;
    if (head.ends[r] < from || pages > (work + head.runs - 1) / head.runs + 2 * MIN_PART) return false;
    from = head.ends[r];
  }
  return head.runs == 0 || from == head.items;
}
// For sms multiprocessors; with 1 nothing is cut.
static void planPrefill(Cache& c, PrefillBuffers& b, int sms) {
  launch(prefill_plan, c.layers, 1024, 64 * 256 * 4 + 8192 + 2 * MAX_CUT_ITEMS * 4, 0, false, c.dHeader.p, c.dSeqs.p, c.dRules.p, b.plan.p, b.stride, b.maxItems, c.layers, c.kv, c.group, c.hd, sms);
}
static void planPrefill(const Device& dev, Cache& c, PrefillBuffers& b) { planPrefill(c, b, dev.sms); }
static void runPrefill(const Device& dev, Cache& c, PrefillBuffers& b, const char* q, bf16* out, int layer, bool pdl) {
  auto kernel = c.fp8 ? byHeadDim(c, prefill_attention_fp8_64, prefill_attention_fp8_128, prefill_attention_fp8_256)
                      : byHeadDim(c, prefill_attention_64, prefill_attention_128, prefill_attention_256);
  const int tile = pageBytes(c.hd) / 2, tileKV = decodeTile(c.hd, c.fp8);
  const bool fast = dev.hopper && c.hd <= 128;
  const int shared = fast ? 11 * tile + 2 * (int)sizeof(PrefillItem) + 16 + 256 + 1024 + (c.fp8 ? 2 * pageBytes(c.hd, true) : 0) : tile + 2 * tileKV + 16;
  const int grid = fast ? dev.sms : dev.sms * std::max(1, std::min(4, dev.sharedPerSM / (shared + 1024)));
  launch(kernel, grid, fast ? 512 : 128, shared, 0, pdl, c.pool.p, b.plan.p + layer * b.stride, c.dTable.p, q, out, (int*)b.workspace.p, b.maxItems, c.maxBlocks,
         c.kv * c.group, c.hd, 1 / sqrt((double)c.hd));
}

struct Chunk { int start, len; };
enum Cutting { ANY, CUT, WHOLE };  // what is expected of the items

// What a layer's items, whole or cut, must be: the members of all of them see every
// visible block once, part 0 the diagonal one; parts lie in workspaces of their own.
static bool itemsAreComplete(const Device& dev, const Cache& c, const PrefillBuffers& b, int layer, int& parts) {
  std::map<std::pair<int, int>, std::multiset<int>> seen;  // by query tile and head, and by table
  std::set<int> slots;
  parts = 0;
  const auto items = itemsOf(b, layer);
  bool ok = (int)items.size() <= b.maxItems && runsAreEven(b, layer);
  for (auto& x : items) {
    ok = ok && x.part >= 0 && x.part < x.parts;
    if (x.parts > 1) {
      ++parts;
      ok = ok && x.slot >= 0 && x.slot + x.parts <= 2 * (dev.sms - 1) && slots.insert(x.slot + x.part).second;
    }
    for (auto& w : x.w) {
      if ((w.z >> 20 & 127) == 0) continue;
      ok = ok && w.z >> 28 == (x.part > 0);
      auto& s = seen[{w.x, x.table}];
      for (int block = w.z & 0xfffff; block <= w.y; ++block) s.insert(block);
      if (w.z >> 27 & 1) s.insert(0);
    }
  }
  size_t pairs = 0;
  const int qh = c.kv * c.group;
  for (auto& s : c.seqs)
    for (int q = s.start / BLOCK; s.tile >= 0 && q <= (s.start + s.len - 1) / BLOCK; ++q)
      for (int h = 0; h < qh; ++h, ++pairs) {
        const int head = layer * c.kv + h / c.group, start = c.startBlock(s, head, q);
        std::multiset<int> want;
        for (int block = start; block <= q; ++block) want.insert(block);
        want.insert(0);
        if (start == 0) want.erase(want.begin());
        ok = ok && seen[{(s.tile + q - s.start / BLOCK) * qh + h, s.slot * c.heads + head}] == want;
      }
  return ok && pairs == seen.size();
}

static void checkPrefill(const Device& dev, int hd, int kv, int group, std::vector<Chunk> chunks, int decodes, float scale, int sample, bool fp8 = false, Cutting cutting = ANY) {
  Cache c;
  c.fp8 = fp8;
  const int layers = 2;
  c.layers = layers; c.kv = kv; c.group = group; c.hd = hd; c.decodes = decodes;
  c.rules = mixedRules(layers * kv, hd);
  for (int i = 0; i < decodes; ++i) c.seqs.push_back({i, i, 1, 100 + i, 0, 32, 0, -1});
  int row = decodes, tile = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const int end = chunks[i].start + chunks[i].len;
    c.seqs.push_back({decodes + (int)i, row, chunks[i].len, chunks[i].start, 0, i % 2 ? 0 : 32, i % 3 == 2 ? end / BLOCK + 2 : 0, tile});
    row += chunks[i].len;
    tile += (end - 1) / BLOCK - chunks[i].start / BLOCK + 1;
  }
  layOut(c, hd + group + 1);
  const int qh = kv * group;
  const size_t tileElements = (size_t)BLOCK * c.stored;
  // Rows of tiles that belong to no token stay NaN.
  std::vector<bf16> hq((size_t)c.tiles * qh * tileElements);
  memset((void*)hq.data(), 0xff, hq.size() * 2);
  for (auto& s : c.seqs)
    for (int p = s.start; s.tile >= 0 && p < s.start + s.len; ++p)
      for (int h = 0; h < qh; ++h)
        for (int d = 0; d < c.stored; ++d)
          *(bf16*)((char*)&hq[((s.tile + p / BLOCK - s.start / BLOCK) * (size_t)qh + h) * tileElements] + tileOffset(p % BLOCK, d)) =
              toBf16(fp8 || d < hd ? gauss(((size_t)(s.row + p - s.start) * qh + h) * 256 + d) * scale : 0.f);
  Buffer<bf16> q(hq), out((size_t)(c.rows + 70) * qh * hd);
  PrefillBuffers b;
  preparePrefill(dev, c, b);
  planPrefill(dev, c, b);
  double total = 0, worst = 0, t, w;
  bool ok = true;
  size_t stray = 0, missing = 0;
  int parts = 0;
  std::vector<bf16> before[2];
  for (int l = 0; l < layers; ++l) {
    int n;
    ok = itemsAreComplete(dev, c, b, l, n) && ok;
    parts += n;
  }
  ok = ok && (cutting == ANY || (parts > 0) == (cutting == CUT));
  for (int step = 0; step < 3; ++step)  // each finds what the one before left
    for (int l = 0; l < layers; ++l) {
      out.poison();
      runPrefill(dev, c, b, (char*)q.p, out.p, l, l > 0);
      CK(cudaDeviceSynchronize());
      std::vector<RefRow> rows;
      for (auto& s : c.seqs)
        for (int i = 0; s.tile >= 0 && i < s.len; ++i)
          for (int h = 0; h < qh; ++h) {
            const int p = s.start + i, head = l * kv + h / group, r = s.row + i;
            if (sample > 0 && hash32(r * 64 + h + l) % sample) continue;
            rows.push_back({s.slot * c.heads + head, c.startBlock(s, head, p / BLOCK), p,
                            (int64_t)(((s.tile + p / BLOCK - s.start / BLOCK) * (size_t)qh + h) * tileElements), p % BLOCK, ((int64_t)r * qh + h) * hd});
          }
      ok = compareRows(c, q.p, out, rows, t, w) && ok;
      total = std::max(total, t);
      worst = std::max(worst, w);
      const auto got = out.get();
      // Bit by bit the same, in whatever order parts end.
      ok = ok && (cutting != CUT || step == 0 || !memcmp(got.data(), before[l].data(), got.size() * sizeof(bf16)));
      before[l] = got;
      for (size_t i = 0; i < got.size(); ++i) {
        const int r = (int)(i / ((size_t)qh * hd));
        const bool nan = toFloat(got[i]) != toFloat(got[i]);
        if (r < decodes || r >= c.rows) stray += !nan; else missing += nan;
      }
    }
  ok = ok && !stray && !missing;
  report(ok, format("prefill%s hd=%d kv=%d group=%d chunks=%zu first=%d+%d rows=%d scale=%g: %d parts, rel %.2e worst row %.2e stray %zu missing %zu", fp8 ? " fp8" : "", hd, kv, group,
                    chunks.size(), chunks[0].start, chunks[0].len, c.rows, scale, parts, total, worst, stray, missing));
}

// A whole decode step as a graph with programmatic launches: rope_append writes the
// keys, the values and the queries that the attention right after it reads, while its
// loads of older pages already run. Replayed with other inputs each time.
static void checkGraph(const Device& dev, int batch, int layers, bool fp8 = false) {
  Cache c;
  c.fp8 = fp8;
  c.layers = layers; c.kv = 4; c.group = 4; c.hd = 128; c.decodes = batch;
  c.rules = mixedRules(layers * c.kv, 1);
  for (int i = 0; i < batch; ++i) c.seqs.push_back({i, i, 1, i % 3 ? 100 + 37 * i : 64 * i, 0, 8, 0, -1});
  layOut(c, 8);
  const int qh = c.kv * c.group, all = qh + 2 * c.kv, pairs = 64;
  std::vector<Row> meta(batch);
  for (int i = 0; i < batch; ++i) meta[i] = {i, c.seqs[i].start};
  std::vector<float> ones((size_t)c.maxBlocks * BLOCK * pairs * 2);
  for (size_t i = 0; i < ones.size(); ++i) ones[i] = i % 2 ? 0.6f : 0.8f;
  Buffer<Row> dm(meta);
  Buffer<float> angles(ones);
  const size_t rowElements = (size_t)all * c.hd;
  Buffer<bf16> qkv(batch * rowElements * layers), q(batch * (size_t)qh * c.stored * layers), out((size_t)batch * qh * c.hd * layers);
  const size_t per = q.n / layers;
  const int64_t stride = decodePlanBytes(batch, c.kv);
  Buffer<char> plan(stride * layers);
  const size_t words = decodeWorkspaceWords(dev, c.group, c.hd, fp8);
  Buffer<float> ws(words * 3);
  auto workspace = [&](int l) { return ws.p + (l == layers - 1 && layers % 2 ? 2 : l % 2) * words; };
  cudaStream_t st;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CK(cudaStreamCreate(&st));
  CK(cudaStreamBeginCapture(st, cudaStreamCaptureModeThreadLocal));
  launch(decode_plan, layers, 1024, 0, st, false, c.dHeader.p, c.dSeqs.p, c.dRules.p, plan.p, stride, layers, c.kv, c.group, decodeGrid(dev, c.hd, fp8), c.hd);
  for (int l = 0; l < layers; ++l) {
    launch(fp8 ? rope_append_fp8 : rope_append, ropeGrid(batch, all, c.hd, pairs, false, fp8), 128, 0, st, l > 0, qkv.p + l * batch * rowElements, nullptr, nullptr, nullptr, angles.p, dm.p, c.dSeqs.p, c.dTable.p, c.pool.p,
           q.p + l * per, nullptr, batch, qh, c.kv, c.hd, pairs, 0, l, c.heads, c.maxBlocks, 1e-6);
    launch(decodeKernel(c), decodeGrid(dev, c.hd, fp8), 160, decodeShared(dev, c.hd, fp8), st, true, c.pool.p, plan.p + l * stride, c.dTable.p, q.p + l * per, out.p + (size_t)l * batch * qh * c.hd,
           workspace(l), workspace((l + layers - 1) % layers), l, c.kv, c.heads, c.maxBlocks, c.group, c.hd, decodeStages(dev, c.hd, fp8), 1 / sqrt((double)c.hd));
  }
  CK(cudaStreamEndCapture(st, &graph));
  CK(cudaGraphInstantiate(&exec, graph, 0));
  bool ok = true;
  double total = 0, worst = 0, t, w;
  for (int step = 0; step < 20; ++step) {
    fillGauss<<<256, 256, 0, st>>>(qkv.p, qkv.n, 100 + step, 1.5f);
    CK(cudaMemsetAsync(out.p, 0xff, out.n * 2, st));
    CK(cudaGraphLaunch(exec, st));
    CK(cudaStreamSynchronize(st));
    if (step % 5 != 4) continue;
    for (int l = 0; l < layers; ++l) {
      std::vector<RefRow> rows;
      for (int s = 0; s < batch; ++s)
        for (int h = 0; h < qh; ++h) {
          const Seq& sq = c.seqs[s];
          const int head = l * c.kv + h / c.group;
          rows.push_back({sq.slot * c.heads + head, c.startBlock(sq, head, sq.start / BLOCK), sq.start, (int64_t)(l * per) + ((int64_t)s * qh + h) * c.stored, -1,
                          (((int64_t)l * batch + s) * qh + h) * c.hd});
        }
      ok = compareRows(c, q.p, out, rows, t, w) && ok;
      total = std::max(total, t);
      worst = std::max(worst, w);
    }
  }
  report(ok, format("graph%s of %d layers, batch %d: rel %.2e worst row %.2e", fp8 ? " fp8" : "", layers, batch, total, worst));
  CK(cudaGraphExecDestroy(exec));
  CK(cudaGraphDestroy(graph));
  CK(cudaStreamDestroy(st));
}

// Nothing to decode, nothing to prefill: every kernel must end.
static void checkEmpty(const Device& dev) {
  Cache c;
  c.layers = 1; c.kv = 2; c.group = 2; c.hd = 128;
  c.rules = mixedRules(2, 0);
  c.seqs.push_back({0, 0, 1, 0, 0, 0, 0, 0});
  layOut(c, 1);
  Header none{};
  c.dHeader.put({none});
  Buffer<bf16> q(1 << 16), out(1024);
  Buffer<char> plan;
  c.decodes = 1;
  planDecode(dev, c, plan);
  const size_t words = decodeWorkspaceWords(dev, c.group, c.hd);
  Buffer<float> ws(words * 2);
  runDecode(dev, c, q, out, 0, ws.p, ws.p + words, plan.p, false);
  PrefillBuffers b;
  preparePrefill(dev, c, b);
  planPrefill(dev, c, b);
  runPrefill(dev, c, b, (char*)q.p, out.p, 0, true);
  CK(cudaDeviceSynchronize());
  bool ok = true;
  for (float x : widen(out.get())) ok = ok && x != x;
  report(ok, "empty step");
}

// Chunks that are short beside their depth, whose items are cut.
static void checkCutPrefill(const Device& dev, bool fp8) {
  for (int hd : {64, 80, 128, 256}) {
    checkPrefill(dev, hd, 4, 4, {{8129, 63}}, 3, 1, 0, fp8, CUT);
    checkPrefill(dev, hd, 4, 1, {{8191, 65}}, 0, 1, 0, fp8, CUT);  // a row of the first block
    checkPrefill(dev, hd, 5, 3, {{5000, 130}, {3000, 2}, {0, 70}}, 2, 1, 0, fp8, CUT);
    checkPrefill(dev, hd, 5, 2, {{6001, 100}}, 0, 8, 0, fp8, CUT);
    checkPrefill(dev, hd, 5, 4, {{4096, 64}}, 1, 60, 0, fp8, CUT);  // scores far above the first tile's
  }
  checkPrefill(dev, 128, 8, 4, {{7937, 255}}, 5, 1, 7, fp8, CUT);
  checkPrefill(dev, 128, 1, 1, {{40000, 33}}, 0, 1, 0, fp8, CUT);  // one item, in many parts
  checkPrefill(dev, 128, 8, 4, {{6000, 2192}}, 0, 1, 61, fp8, WHOLE);
  checkPrefill(dev, 64, 2, 4, {{0, 63}, {100, 20}}, 0, 1, 0, fp8, WHOLE);  // too short for parts
}

static void checkAttention(const Device& dev, bool fp8) {
  checkGraph(dev, 1, 2, fp8);
  checkGraph(dev, 19, 5, fp8);
  for (int hd : {64, 80, 96, 128, 256}) {
    for (int group : {1, 2, 3, 4, 7, 8}) checkDecode(dev, hd, 4, group, {1, 64, 65, 130, 1000, 2500, 17}, 3, 1, true, fp8);
    checkDecode(dev, hd, 2, 4, {9000}, 2, 1, true, fp8);
    checkDecode(dev, hd, 1, 1, {1}, 1, 1, false, fp8);
  }
  {
    std::vector<int> many;
    for (int i = 0; i < 70; ++i) many.push_back(1 + hash32(i) % 1500);
    checkDecode(dev, 128, 8, 4, many, 2, 1, true, fp8);
    checkDecode(dev, 128, 32, 1, {700, 3000, 5}, 3, 8, true, fp8);  // peaked
    checkDecode(dev, 64, 3, 3, many, 5, 30, true, fp8);
  }
  for (int hd : {64, 80, 96, 128, 256}) {
    checkPrefill(dev, hd, 2, 4, {{0, 300}, {1000, 200}, {64, 64}, {77, 1}, {130, 500}}, 3, 1, 0, fp8);
    checkPrefill(dev, hd, 3, 1, {{0, 1}, {0, 64}, {0, 65}, {2049, 700}}, 0, 1, 0, fp8);
    checkPrefill(dev, hd, 2, 3, {{640, 129}}, 1, 8, 0, fp8);
    checkPrefill(dev, hd, 1, 8, {{3000, 100}, {10, 20}}, 0, 60, 0, fp8);  // scores far above the diagonal's
  }
  checkCutPrefill(dev, fp8);
  checkPrefill(dev, 128, 8, 4, {{0, 4096}}, 0, 1, 97, fp8);
  checkPrefill(dev, 128, 8, 1, {{28672, 2000}, {0, 777}}, 5, 1, 61, fp8);
}

static void checkAttention(const Device& dev) {
  checkEmpty(dev);
  for (bool fp8 : {false, true}) checkAttention(dev, fp8);
}

// A few small cases, for compute-sanitizer: memcheck and synccheck find nothing. racecheck
// reports the items of the prefill attention (and the work words of its converters), which
// one lane hands over for its warp behind __syncwarp: it does not follow that. With every
// lane arriving for itself the reports on items end, and prefills take 7 % longer.
static void checkSmall(const Device& dev) {
  checkEmpty(dev);
  for (bool fp8 : {false, true}) {
    checkGraph(dev, 3, 3, fp8);
    for (int hd : {64, 80, 128, 256}) {
      checkDecode(dev, hd, 2, 3, {1, 200, 65}, 2, 1, true, fp8);
      checkPrefill(dev, hd, 1, 2, {{0, 70}, {130, 40}}, 1, 1, 0, fp8);
    }
    checkPrefill(dev, 128, 1, 4, {{300, 100}}, 0, 60, 0, fp8);
    for (int hd : {64, 128, 256}) checkPrefill(dev, hd, 4, 4, {{6001, 33}}, 1, 1, 0, fp8, CUT);
  }
}
