// Decode attention as a share of a plain read, prefill attention in TFLOP/s on
// visited 64 x 64 tiles.
#pragma once
#include "check_attention.cuh"

__global__ void plainRead(const uint4* d, size_t n, uint32_t* sink) {
  uint32_t acc = 0;
  const size_t stride = (size_t)gridDim.x * blockDim.x;
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i + 7 * stride < n; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int u = 0; u < 8; ++u) v[u] = __ldcs(d + i + u * stride);
#pragma unroll
    for (int u = 0; u < 8; ++u) acc ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  if (acc == 0x12345678) *sink = acc;
}

// Median seconds of f, each between two events, after warm seconds that do not count.
template <class F>
static double median(F f, double warm, double secs, int most, cudaStream_t stream) {
  cudaEvent_t a, b;
  CK(cudaEventCreate(&a));
  CK(cudaEventCreate(&b));
  std::vector<float> t;
  for (int phase = 0; phase < 2; ++phase) {
    double sum = 0;
    t.clear();
    for (int k = 0; k < most && (k < 1 || sum < (phase ? secs : warm) * 1e3); ++k) {
      CK(cudaEventRecord(a, stream));
      f();
      CK(cudaEventRecord(b, stream));
      CK(cudaEventSynchronize(b));
      float ms;
      CK(cudaEventElapsedTime(&ms, a, b));
      sum += ms;
      t.push_back(ms);
    }
  }
  CK(cudaEventDestroy(a));
  CK(cudaEventDestroy(b));
  std::sort(t.begin(), t.end());
  return t[t.size() / 2] * 1e-3;
}

static double readRate(const Device& dev) {
  Buffer<char> d((size_t)8 << 30);
  Buffer<uint32_t> sink(1);
  fillGauss<<<2048, 256>>>((bf16*)d.p, d.n / 2, 3, 1);
  double best = 0;
  for (int per : {4, 8, 16}) {
    const double s = median([&] { plainRead<<<dev.sms * per, 256>>>((const uint4*)d.p, d.n / 16, sink.p); }, 0.02, 0.05, 20, 0);
    best = std::max(best, d.n / s);
  }
  printf("plain read of 8.6 GB: %.3f TB/s\n", best / 1e12);
  return best;
}

// One graph of a launch a layer, over distinct layers of at least 1.2 GB.
static void benchDecode(const Device& dev, double rate, int hd, int kv, int group, int batch, int context, double budget, bool fp8) {
  Cache c;
  c.fp8 = fp8;
  c.kv = kv; c.group = group; c.hd = hd; c.decodes = batch;
  const int P = context / BLOCK;
  const double perLayer = (double)batch * kv * P * pageBytes(hd, fp8) * 0.5;
  c.layers = std::max(2, std::min(64, (int)(std::min(budget, std::max(1.5e9, 4 * perLayer)) / perLayer) / 2 * 2));
  // Spans: powers of two blocks, and everything often enough for a mean density of 0.5.
  std::vector<int> powers;
  double mean = 0;
  for (int b = 1; b < P; b *= 2) powers.push_back(b), mean += std::min(1.0, (b + 1.0) / P);
  mean /= powers.size();
  const int n = c.layers * kv, dense = mean < 0.5 ? (int)std::lround((0.5 - mean) / (1 - mean) * n) : 0;
  for (int i = 0; i < n; ++i) c.rules.push_back(i < dense ? Rule{0, 1} : Rule{64.0 * powers[(i - dense) % powers.size()], 0});
  std::mt19937 rng(batch + context);
  std::shuffle(c.rules.begin(), c.rules.end(), rng);
  for (int i = 0; i < batch; ++i) c.seqs.push_back({i, i, 1, context - 1 - (int)(rng() % 64), 0, 0, 0, -1});
  layOut(c, 5);
  double tokens = 0;
  for (auto& s : c.seqs)
    for (int h = 0; h < n; ++h) {
      const int q = s.start / BLOCK, st = c.startBlock(s, h, q);
      tokens += s.start + 1 - (st > 0 ? (st - 1) * BLOCK : 0);
    }
  const double bytes = tokens * hd * (fp8 ? 2 : 4) / c.layers;
  const int qh = kv * group;
  Buffer<bf16> q((size_t)batch * qh * c.stored), out((size_t)batch * qh * hd);
  fillGauss<<<256, 256>>>(q.p, q.n, 9, 1);
  Buffer<char> plan;
  planDecode(dev, c, plan);
  const size_t words = decodeWorkspaceWords(dev, group, hd, fp8);
  Buffer<float> ws(words * 2);
  CK(cudaDeviceSynchronize());
  cudaStream_t stream;
  CK(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  const int launches = std::max(c.layers, 32) / c.layers * c.layers;
  const int64_t stride = decodePlanBytes(batch, kv);
  for (int i = 0; i < launches; ++i) {
    const int l = i % c.layers;
    launch(decodeKernel(c), decodeGrid(dev, hd, fp8), 160, decodeShared(dev, hd, fp8), stream, i > 0, c.pool.p, plan.p + l * stride, c.dTable.p, q.p, out.p, ws.p + (i & 1) * words,
           ws.p + (~i & 1) * words, l, kv, c.heads, c.maxBlocks, group, hd, decodeStages(dev, hd, fp8), 1 / sqrt((double)hd));
  }
  CK(cudaStreamEndCapture(stream, &graph));
  CK(cudaGraphInstantiate(&exec, graph, 0));
  const double s = median([&] { CK(cudaGraphLaunch(exec, stream)); }, 0.03, 0.06, 30, stream) / launches;
  const double planning = median([&] { planDecode(dev, c, plan); }, 0.001, 0.01, 20, 0);
  printf("decode%s hd=%d kv=%d group=%d batch=%d context=%d: %d layers, density %.3f, %.1f MB a layer, %.2f us, %.3f TB/s, %.3f of a plain read; plan of all layers %.1f us\n", fp8 ? " fp8" : "", hd, kv, group,
         batch, context, c.layers, tokens / (double)c.layers / ((double)batch * kv * context), bytes / 1e6, s * 1e6, bytes / s / 1e12, bytes / s / rate, planning * 1e6);
  fflush(stdout);
  CK(cudaGraphExecDestroy(exec));
  CK(cudaGraphDestroy(graph));
  CK(cudaStreamDestroy(stream));
}

static void benchPrefill(const Device& dev, int hd, int kv, int group, int start, int len, const std::string& plan, bool fp8, double secs = 0.12) {
  static const Rule m50[8] = {{0, 1}, {1024, 0}, {128, 0.75}, {128, 0.25}, {0, 1}, {128, 0.125}, {128, 0.5}, {128, 0.25}};
  static const Rule m25[8] = {{128, 0.5}, {512, 0}, {128, 0.25}, {128, 0.0625}, {128, 0.75}, {128, 0.03125}, {128, 0.125}, {128, 0.125}};
  Cache c;
  c.fp8 = fp8;
  c.layers = 1; c.kv = kv; c.group = group; c.hd = hd;
  for (int h = 0; h < kv; ++h) c.rules.push_back(plan == "dense" ? Rule{0, 1} : plan == "m50" ? m50[h % 8] : m25[h % 8]);
  c.seqs.push_back({0, 0, len, start, 0, 0, 0, 0});
  layOut(c, 6);
  double visited = 0, dense = 0;
  for (int h = 0; h < kv; ++h)
    for (int q = start / BLOCK; q <= (start + len - 1) / BLOCK; ++q) {
      const int st = c.startBlock(c.seqs[0], h, q);
      visited += q - st + 1 + (st > 0);
      dense += q + 1;
    }
  const int qh = kv * group;
  Buffer<bf16> q((size_t)c.tiles * qh * BLOCK * c.stored), out((size_t)len * qh * hd);
  fillGauss<<<2048, 256>>>(q.p, q.n, 9, 1);
  PrefillBuffers b;
  preparePrefill(dev, c, b);
  planPrefill(dev, c, b);
  CK(cudaDeviceSynchronize());
  auto time = [&] { return median([&] { runPrefill(dev, c, b, (char*)q.p, out.p, 0, false); }, secs, secs, 5000, 0); };
  const double s = time(), planning = median([&] { planPrefill(dev, c, b); }, 0.001, 0.01, 20, 0);
  const auto items = itemsOf(b, 0);
  const bool cut = std::any_of(items.begin(), items.end(), [](const PrefillItem& x) { return x.parts > 1; });
  printf("prefill%s hd=%d kv=%d group=%d start=%d len=%d plan=%s density %.3f: %zu items, %.1f us, %.0f TFLOP/s; plan of a layer %.1f us\n", fp8 ? " fp8" : "", hd, kv, group, start, len, plan.c_str(), visited / dense, items.size(), s * 1e6,
         visited * group * 4.0 * BLOCK * BLOCK * hd / s / 1e12, planning * 1e6);
  if (cut) {  // and the same whole
    planPrefill(c, b, 1);
    printf("  not cut: %zu items, %.1f us\n", itemsOf(b, 0).size(), time() * 1e6);
  }
  fflush(stdout);
}

// The choice of tokens, of a large vocabulary.
static void benchSample(double rate) {
  const int vocab = 128256, most = 4096, words = (vocab + 31) / 32;
  for (int rows : {1, 32, 64}) {
    Buffer<float> logits((size_t)rows * vocab);
    Buffer<int> tokens(rows);
    Buffer<Choice> choices(rows);
    std::vector<float> hl(logits.n);
    // As of a language model: a few dozen tokens have most of the mass. A high
    // temperature makes it flat.
    for (size_t i = 0; i < hl.size(); ++i) hl[i] = gauss(i) * 2 + (i % 4001 == 7 ? 12 + 2 * gauss(i + 1) : 0);
    logits.put(hl);
    Buffer<uint32_t> mask((size_t)words);
    mask.put(std::vector<uint32_t>(words, 0x77777777));
    std::vector<Adjustment> hAdjustments((size_t)rows * most);
    for (size_t i = 0; i < hAdjustments.size(); ++i) hAdjustments[i] = {(int)(i % most) * 31, 1, 0};
    Buffer<Adjustment> adjustments(hAdjustments);
    // Biases are overwritten by what they are added to; their values do not matter here.
    auto line = [&](const std::string& name, SampleRow p, int adjusted) {
      std::vector<SampleRow> hp(rows, p);
      for (int r = 0; r < rows; ++r) hp[r].adjustments = adjustments.p + (size_t)r * most, hp[r].adjusted = adjusted;
      Buffer<SampleRow> params(hp);
      const double s = median([&] {
        for (int i = 0; i < 20; ++i) launch(sample, rows, 1024, 0, 0, i > 0, logits.p, params.p, tokens.p, choices.p, rows, vocab);
      }, 0.002, 0.01, 50, 0) / 20;
      printf("%s rows=%d: %.2f us, %.2f of a plain read\n", name.c_str(), rows, s * 1e6, rows * vocab * 4.0 / s / rate);
    };
    auto parameters = [](float temperature, float topP, int topK) {
      SampleRow p{};
      p.uniform = 0.5;
      p.temperature = temperature;
      p.topP = topP;
      p.topK = topK;
      p.repetition = 1.1f;
      return p;
    };
    SampleRow greedy = parameters(0, 0, 0), logprob = greedy, top20 = greedy, masked = greedy;
    logprob.logprobs = 1;
    top20.logprobs = 21;
    masked.mask = mask.p;
    masked.maskWords = words;
    line("sample greedy", greedy, 0);
    line("sample greedy logprobs", logprob, 0);
    line("sample greedy top_logprobs=20", top20, 0);
    line("sample greedy masked", masked, 0);
    line("sample greedy 100 penalties", greedy, 100);
    line("sample greedy 4096 penalties", greedy, 4096);
    for (SampleRow p : {parameters(1, 0, 0), parameters(0.7f, 0.9f, 0), parameters(1, 0.95f, 50), parameters(100, 0.95f, 0)})
      line(format("sample temperature=%g top_p=%g top_k=%d", p.temperature, p.topP, p.topK), p, 0);
    masked.temperature = 0.7f;
    masked.topP = 0.9f;
    line("sample temperature=0.7 top_p=0.9 masked, 1000 penalties", masked, 1000);
  }
}

// The element-wise kernels at one row (latency) and at many (bandwidth).
static void benchLayer(const Device&, double rate) {
  const int hidden = 4096, ffn = 14336, qh = 32, kv = 8, hd = 128;
  for (int rows : {1, 32, 4096}) {
    Buffer<float> x((size_t)rows * hidden), w(hidden);
    Buffer<bf16> d((size_t)rows * hidden), y((size_t)rows * ffn), gu((size_t)rows * 2 * ffn), qkv((size_t)rows * (qh + 2 * kv) * hd);
    x.zero(); w.zero(); d.zero();
    fillGauss<<<2048, 256>>>(gu.p, gu.n, 1, 1);
    fillGauss<<<2048, 256>>>(qkv.p, qkv.n, 2, 1);
    std::vector<Row> meta(rows);
    for (int i = 0; i < rows; ++i) meta[i] = {0, i};
    Buffer<Row> dm(meta);
    Buffer<float> angles((size_t)rows * hd);
    angles.zero();
    auto line = [&](const char* name, double bytes, auto f) {
      const double s = median([&] { for (int i = 0; i < 20; ++i) f(i > 0); }, 0.002, 0.01, 50, 0) / 20;
      printf("%s rows=%d: %.2f us, %.3f TB/s, %.2f of a plain read\n", name, rows, s * 1e6, bytes / s / 1e12, bytes / s / rate);
    };
    line("rmsnorm", rows * hidden * 12.0, [&](bool pdl) { launch(rmsnorm, rows, 512, 0, 0, pdl, x.p, d.p, w.p, y.p, nullptr, rows, hidden, 1e-5); });
    line("silu_mul", rows * ffn * 6.0, [&](bool pdl) { launch(silu_mul, dim3((ffn / 8 + 255) / 256, rows), 256, 0, 0, pdl, gu.p, y.p, rows, ffn); });
    for (bool fp8 : {false, true}) {
      Cache c;
      c.fp8 = fp8;
      c.layers = 1; c.kv = kv; c.group = qh / kv; c.hd = hd;
      c.rules.assign(kv, Rule{0, 1});
      c.seqs.push_back({0, 0, rows, 0, 0, 0, 0, 0});
      layOut(c, 3);
      Buffer<bf16> tiles((size_t)c.tiles * qh * BLOCK * hd);
      line(fp8 ? "rope_append_fp8" : "rope_append", rows * hd * (qh * 4.0 + 2 * kv * (fp8 ? 3 : 4)), [&](bool pdl) {
        launch(fp8 ? rope_append_fp8 : rope_append, ropeGrid(rows, qh + 2 * kv, hd, hd / 2, false, fp8), 128, 0, 0, pdl, qkv.p, nullptr, nullptr, nullptr, angles.p, dm.p, c.dSeqs.p, c.dTable.p, c.pool.p, nullptr,
               (char*)tiles.p, rows, qh, kv, hd, hd / 2, 0, 0, kv, c.maxBlocks, 1e-6);
      });
    }
  }
}

// The prefill attention of whole prompts, each long enough for the card's power limit to
// matter, and each plan twice.
static void benchPrompts(const Device& dev) {
  for (int round = 0; round < 2; ++round)
    for (int len : {8192, 32768, 131072})
      for (const char* plan : {"dense", "m50", "m25"}) benchPrefill(dev, 128, 8, 4, 0, len, plan, false, 0.4);
}

// The decode attention of the shapes in docs/benchmarks.md, three times each.
static void benchDecodes(const Device& dev) {
  const double rate = readRate(dev);
  struct D { int hd, kv, group, batch, context; };
  for (int round = 0; round < 3; ++round)
    for (D d : {D{128, 32, 1, 8, 8192}, D{128, 32, 1, 32, 8192}, D{128, 32, 1, 1, 16384}, D{128, 8, 4, 8, 8192}, D{128, 8, 4, 32, 8192}, D{128, 8, 4, 1, 16384}, D{128, 8, 4, 1, 131072}})
      benchDecode(dev, rate, d.hd, d.kv, d.group, d.batch, d.context, 12e9, false);
}

static void bench(const Device& dev, bool quick) {
  const double rate = readRate(dev), budget = 12e9;
  benchLayer(dev, rate);
  benchSample(rate);
  struct D { int hd, kv, group, batch, context; };
  std::vector<D> ds = {{128, 32, 1, 1, 16384}, {128, 32, 1, 8, 8192}, {128, 8, 4, 1, 16384}, {128, 8, 4, 8, 8192}, {128, 8, 4, 32, 8192}, {64, 8, 4, 32, 8192}};
  if (!quick) for (D d : {D{128, 32, 1, 1, 8192}, D{128, 32, 1, 30, 4096}, D{128, 32, 1, 32, 8192}, D{128, 8, 4, 1, 8192}, D{128, 8, 4, 1, 131072}, D{128, 8, 4, 30, 4096}, D{128, 4, 8, 8, 8192},
                          D{128, 4, 8, 32, 8192}, D{64, 32, 1, 8, 8192}, D{256, 8, 2, 8, 8192}, D{80, 32, 1, 8, 4096}}) ds.push_back(d);
  for (auto& d : ds)
    for (bool fp8 : {false, true}) benchDecode(dev, rate, d.hd, d.kv, d.group, d.batch, d.context, budget, fp8);
  struct P { int hd, kv, group, start, len; const char* plan; };
  std::vector<P> ps = {{128, 8, 4, 0, 8192, "dense"}, {128, 8, 4, 0, 8192, "m50"}, {128, 8, 4, 0, 32768, "dense"}, {128, 8, 4, 0, 32768, "m50"}, {128, 8, 4, 0, 131072, "dense"}, {128, 8, 4, 0, 131072, "m50"}, {64, 8, 4, 0, 32768, "dense"}, {256, 8, 2, 0, 8192, "dense"}};
  // Short chunks at the end of 8k, as they go beside decodes.
  for (const char* plan : {"dense", "m50"})
    for (int len : {63, 255, 447})
      for (int kv : {8, 32}) ps.push_back({128, kv, 32 / kv, 8192 - len, len, plan});
  if (!quick) for (P p : {P{128, 32, 1, 0, 8192, "m50"}, P{128, 32, 1, 0, 32768, "dense"}, P{128, 32, 1, 0, 32768, "m50"}, P{128, 8, 4, 0, 8192, "m25"}, P{128, 8, 4, 0, 32768, "m25"},
                          P{128, 8, 4, 126976, 4096, "m50"}, P{128, 8, 4, 122880, 8192, "m25"}, P{64, 8, 4, 0, 8192, "m50"}}) ps.push_back(p);
  for (auto& p : ps)
    for (bool fp8 : {false, true}) benchPrefill(dev, p.hd, p.kv, p.group, p.start, p.len, p.plan, fp8);
}
