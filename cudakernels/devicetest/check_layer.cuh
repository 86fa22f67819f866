// The element-wise kernels against float64 on the CPU.
#pragma once
#include "harness.cuh"

// One rounding to bfloat16 (2^-9) and float32 arithmetic.
static bool near(double got, double want, double size) { return fabs(got - want) <= (fabs(want) * 1.01 + size * 1e-4) / 256; }

static void checkEmbed() {
  const int rows = 5, hidden = 576, vocab = 100;
  std::vector<int> tokens{3, 99, 0, -2, 200}, choices{8, 3};
  std::vector<bf16> table((size_t)vocab * hidden);
  for (size_t i = 0; i < table.size(); ++i) table[i] = toBf16(gauss(i));
  Buffer<int> t(tokens), c(choices);
  Buffer<bf16> d(table);
  Buffer<float> x((size_t)rows * hidden);
  launch(embed, rows, 128, 0, 0, false, t.p, c.p, d.p, x.p, rows, hidden, vocab);
  tokens[3] = choices[1];
  const auto got = x.get();
  bool ok = true;
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < hidden; ++i) ok = ok && got[r * hidden + i] == toFloat(table[(tokens[r] < vocab ? tokens[r] : 0) * hidden + i]);
  report(ok, "embed");
}

static void checkNorm(int hidden, bool delta, bool index) {
  const int rows = 4, out = index ? 3 : rows;
  std::vector<float> x((size_t)rows * hidden), w(hidden);
  std::vector<bf16> d(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = gauss(i) * 3, d[i] = toBf16(gauss(i + 1000000));
  for (int i = 0; i < hidden; ++i) w[i] = 1 + 0.2f * gauss(i + 5);
  std::vector<int> ix{3, 0, 2};
  Buffer<float> dx(x), dw(w);
  Buffer<bf16> dd(d), y((size_t)out * hidden);
  Buffer<int> di(ix);
  const int threads = std::min(std::max((hidden / 8 + 31) / 32 * 32, 64), 1024);
  launch(rmsnorm, out, threads, 0, 0, false, dx.p, delta ? dd.p : nullptr, dw.p, y.p, index ? di.p : nullptr, out, hidden, 1e-5);
  const auto got = y.get();
  const auto after = dx.get();
  bool ok = true;
  for (int r = 0; r < out; ++r) {
    const int row = index ? ix[r] : r;
    double sum = 0;
    std::vector<double> v(hidden);
    for (int i = 0; i < hidden; ++i) {
      v[i] = (double)x[row * hidden + i] + (delta ? (double)toFloat(d[row * hidden + i]) : 0);
      sum += v[i] * v[i];
      const float kept = after[row * hidden + i];
      ok = ok && (index ? kept == x[row * hidden + i] : fabs(kept - v[i]) < 1e-6 * (1 + fabs(v[i])));
    }
    for (int i = 0; i < hidden; ++i) ok = ok && near(toFloat(got[r * hidden + i]), v[i] / sqrt(sum / hidden + 1e-5) * w[i], 1);
  }
  report(ok, format("rmsnorm hidden=%d delta=%d index=%d", hidden, delta, index));
}

static void checkSilu() {
  const int rows = 3, ffn = 1544;
  std::vector<bf16> g((size_t)rows * 2 * ffn);
  for (size_t i = 0; i < g.size(); ++i) g[i] = toBf16(gauss(i) * 20);
  Buffer<bf16> d(g), y((size_t)rows * ffn);
  launch(silu_mul, dim3((ffn / 8 + 255) / 256, rows), 256, 0, 0, false, d.p, y.p, rows, ffn);
  const auto got = y.get();
  bool ok = true;
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < ffn; ++i) {
      const double a = toFloat(g[r * 2 * ffn + i]), b = toFloat(g[r * 2 * ffn + ffn + i]);
      ok = ok && near(toFloat(got[r * ffn + i]), a / (1 + exp(-a)) * b, 1);
    }
  report(ok, "silu_mul");
}

static void checkRope(int hd, int pairs, bool interleaved, bool bias, bool norm) {
  const int layers = 2, layer = 1, kv = 2, group = 3, qh = kv * group, all = qh + 2 * kv;
  Cache c;
  c.layers = layers; c.kv = kv; c.group = group; c.hd = hd; c.decodes = 2;
  c.rules.assign(layers * kv, Rule{0, 1});
  // Two decode (one enters a page, one does not), one prefills from the middle of a block.
  c.seqs = {{0, 0, 1, 128, 0, 32, 0, -1}, {2, 1, 1, 70, 0, 32, 0, -1}, {1, 2, 60, 150, 0, 32, 0, 0}};
  layOut(c, hd);
  const auto before = c.pool.get();
  const int rows = c.rows + 2;  // the last two are padding
  std::vector<Row> meta(rows, Row{-1, 0});
  for (int s = 0; s < 3; ++s)
    for (int i = 0; i < c.seqs[s].len; ++i) meta[c.seqs[s].row + i] = {s, c.seqs[s].start + i};
  std::vector<bf16> qkv((size_t)rows * all * hd);
  for (size_t i = 0; i < qkv.size(); ++i) qkv[i] = toBf16(gauss(i) * 2);
  std::vector<float> b(all * hd), qn(hd), kn(hd), angles((size_t)300 * pairs * 2);
  for (auto& x : b) x = gauss(&x - &b[0]);
  for (int i = 0; i < hd; ++i) qn[i] = 1 + 0.1f * gauss(i), kn[i] = 1 + 0.1f * gauss(i + 999);
  for (int p = 0; p < 300; ++p)
    for (int i = 0; i < pairs; ++i) {
      const double a = p * pow(10000.0, -(double)i / pairs);
      angles[(p * pairs + i) * 2] = (float)cos(a);
      angles[(p * pairs + i) * 2 + 1] = (float)sin(a);
    }
  Buffer<bf16> dqkv(qkv), q((size_t)c.decodes * qh * c.stored), tiles((size_t)c.tiles * qh * BLOCK * c.stored);
  Buffer<float> db(b), dqn(qn), dkn(kn), da(angles);
  Buffer<Row> dm(meta);
  launch(rope_append, dim3(rows, (all + 3) / 4), 128, 0, 0, false, dqkv.p, bias ? db.p : nullptr, norm ? dqn.p : nullptr, norm ? dkn.p : nullptr, da.p, dm.p, c.dSeqs.p,
         c.dTable.p, c.pool.p, q.p, (char*)tiles.p, rows, qh, kv, hd, pairs, (int)interleaved, layer, c.heads, c.maxBlocks, 1e-6);
  const auto gq = q.get(), gt = tiles.get();
  const auto after = c.pool.get();
  auto expected = before;  // every byte of the pool
  bool ok = true;
  for (int r = 0; r < c.rows; ++r) {
    const Seq& s = c.seqs[meta[r].seq];
    const int pos = meta[r].pos;
    for (int h = 0; h < all; ++h) {
      const bool isQ = h < qh, isK = !isQ && h < qh + kv;
      std::vector<double> v(c.stored, 0.0), o;
      double sum = 0;
      for (int d = 0; d < hd; ++d) {
        v[d] = toFloat(qkv[((size_t)r * all + h) * hd + d]) + (bias ? (double)b[h * hd + d] : 0);
        sum += v[d] * v[d];
      }
      if (norm && (isQ || isK))
        for (int d = 0; d < hd; ++d) v[d] *= (isQ ? qn : kn)[d] / sqrt(sum / hd + 1e-6);
      o = v;
      if (isQ || isK)
        for (int i = 0; i < pairs; ++i) {
          const int x = interleaved ? 2 * i : i, y = interleaved ? 2 * i + 1 : i + pairs;
          const double cs = angles[(pos * pairs + i) * 2], sn = angles[(pos * pairs + i) * 2 + 1];
          o[x] = v[x] * cs - v[y] * sn;
          o[y] = v[x] * sn + v[y] * cs;
        }
      const size_t page = c.table[((size_t)s.slot * c.heads + layer * kv + (h - qh) % kv + (isQ ? 0 : 0)) * c.maxBlocks + pos / BLOCK];
      for (int d = 0; d < c.stored; ++d) {
        float got;
        if (isQ) {
          got = toFloat(s.tile < 0 ? gq[((size_t)meta[r].seq * qh + h) * c.stored + d]
                                   : *(const bf16*)((const char*)&gt[((s.tile + pos / BLOCK - s.start / BLOCK) * (size_t)qh + h) * BLOCK * c.stored] + tileOffset(pos % BLOCK, d)));
        } else {
          const size_t at = page * pageBytes(hd) + (isK ? 0 : (size_t)BLOCK * c.stored * 2) + tileOffset(pos % BLOCK, d);
          got = toFloat(*(const bf16*)&after[at]);
          memcpy(&expected[at], &after[at], 2);
        }
        ok = ok && near(got, o[d], 1);
      }
      // The rest of a page that the step entered is zero.
      if (!isQ && pos == s.start + s.len - 1 && pos / BLOCK * BLOCK >= s.start)
        for (int t = pos % BLOCK + 1; t < BLOCK; ++t)
          for (int d = 0; d < c.stored; ++d) memset(&expected[page * pageBytes(hd) + (isK ? 0 : (size_t)BLOCK * c.stored * 2) + tileOffset(t, d)], 0, 2);
    }
  }
  const bool untouched = memcmp(expected.data(), after.data(), after.size()) == 0;
  report(ok && untouched, format("rope_append hd=%d pairs=%d interleaved=%d bias=%d norm=%d: values %d, rest of the pool %d", hd, pairs, interleaved, bias, norm, ok, untouched));
}

static void checkArgmax() {
  const int rows = 4, vocab = 128256;
  std::vector<float> x((size_t)rows * vocab);
  for (size_t i = 0; i < x.size(); ++i) x[i] = gauss(i) * 3;
  x[777] = x[99999] = 30;                    // a tie
  x[vocab + 128255] = 40;                    // the last id
  x[2 * vocab + 5] = NAN;                    // counts as -Inf
  for (int i = 0; i < vocab; ++i) x[3 * vocab + i] = -INFINITY;
  x[3 * vocab + 4242] = -5;
  Buffer<float> d(x), lp(rows);
  Buffer<int> t(rows);
  launch(argmax, rows, 1024, 0, 0, false, d.p, t.p, lp.p, rows, vocab);
  const auto got = t.get();
  const auto probs = lp.get();
  bool ok = true;
  for (int r = 0; r < rows; ++r) {
    int best = -1;
    double sum = 0;
    for (int i = 0; i < vocab; ++i) if (x[r * (size_t)vocab + i] == x[r * (size_t)vocab + i] && (best < 0 || x[r * (size_t)vocab + i] > x[r * (size_t)vocab + best])) best = i;
    for (int i = 0; i < vocab; ++i) if (x[r * (size_t)vocab + i] == x[r * (size_t)vocab + i]) sum += exp((double)x[r * (size_t)vocab + i] - x[r * (size_t)vocab + best]);
    ok = ok && got[r] == best && fabs(probs[r] + log(sum)) < 1e-4 * (1 + log(sum));
  }
  report(ok && got[0] == 777, "argmax");
}

// The reference sorts: top_k by logit, then weights, min_p, top_p by weight, lowest
// ids first among equals, and a draw in the order of ids.
static int drawn(const std::vector<float>& x, const SampleRow& p) {
  const int n = (int)x.size();
  std::vector<int> ids;
  for (int i = 0; i < n; ++i) if (x[i] > -INFINITY) ids.push_back(i);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return x[a] > x[b]; });
  if (ids.empty()) return 0;
  if (p.temperature < 1e-5f) return ids[0];
  if (p.topK > 0 && p.topK < (int)ids.size()) ids.resize(p.topK);
  std::vector<double> w(n, 0.0);
  double total = 0;
  for (int i : ids) {
    const double e = exp(((double)x[i] - x[ids[0]]) / p.temperature);
    w[i] = e < p.minP || e < exp(-87.0) ? 0 : e;
    total += w[i];
  }
  if (p.topP > 0 && p.topP < 1) {
    double sum = 0, kept = 0;
    const double need = p.topP * total;
    for (int i : ids) {
      if (sum >= need) w[i] = 0;
      sum += w[i];
      kept += w[i];
    }
    total = kept;
  }
  double sum = 0;
  int last = 0;
  for (int i = 0; i < n; ++i)
    if (w[i] > 0) {
      last = i;
      if ((sum += w[i]) > p.uniform * total) break;
    }
  return last;
}

static void checkSample(int vocab) {
  const SampleRow kinds[] = {{0, 0, 0, 0, 0}, {0, 1, 1, 0, 0}, {0, 0.7f, 0.9f, 0, 0}, {0, 1, 0, 0, 40}, {0, 1.3f, 0.95f, 0, 50}, {0, 1, 0, 0.05f, 0},
                             {0, 2, 0.5f, 0.01f, 1000}, {0, 1, 0.99f, 0, 1}, {0, 0.8f, 0.95f, 0, 300}, {0, 100, 0.999f, 0, 0}, {0, 1, 1e-6f, 0, 0}, {0, 1, 0.3f, 0, 1 << 30}};
  const int each = 12, rows = (int)(sizeof kinds / sizeof *kinds) * each;
  std::vector<SampleRow> ps(rows);
  std::vector<float> x((size_t)rows * vocab);
  for (int r = 0; r < rows; ++r) {
    ps[r] = kinds[r / each];
    ps[r].uniform = r % each == 0 ? 0 : r % each == 1 ? 1 - 1e-12 : hash32(r) / 4294967296.0;
    for (int i = 0; i < vocab; ++i) {
      float v = gauss((uint64_t)r * vocab + i) * 3;
      if (r % each == 2) v = roundf(v);                 // many ties
      if (r % each == 3 && i % 3) v = -INFINITY;        // masked
      if (r % each == 4) v = 1.5f;                      // all equal
      if (r % each == 5 && i == vocab / 2) v = NAN;     // never drawn
      if (r % each == 6 && i != 7 % vocab) v = -INFINITY;  // one token
      x[(size_t)r * vocab + i] = v;
    }
  }
  Buffer<float> d(x), lp(rows);
  Buffer<SampleRow> dp(ps);
  Buffer<int> t(rows);
  launch(sample, rows, 1024, 0, 0, false, d.p, dp.p, t.p, lp.p, rows, vocab);
  const auto got = t.get();
  const auto probs = lp.get();
  int wrong = 0;
  for (int r = 0; r < rows; ++r) {
    const std::vector<float> line(x.begin() + (size_t)r * vocab, x.begin() + (size_t)(r + 1) * vocab);
    const int want = drawn(line, ps[r]);
    double sum = 0;
    for (float v : line) if (v > -INFINITY) sum += exp((double)v);
    const bool ok = got[r] == want && fabs(probs[r] - (line[want] - log(sum))) < 1e-4 * (1 + log(sum) * log(sum));
    if (!ok && wrong++ < 5) printf("     row %d (kind %d, case %d): token %d, want %d, logprob %g, want %g\n", r, r / each, r % each, got[r], want, probs[r], line[want] - log(sum));
  }
  report(!wrong, format("sample vocabulary=%d: %d of %d rows wrong", vocab, wrong, rows));
}

static void checkLayer() {
  checkEmbed();
  for (int hidden : {576, 896, 4096, 8192, 16384})
    for (bool delta : {false, true})
      for (bool index : {false, true}) checkNorm(hidden, delta, index);
  checkSilu();
  checkRope(64, 32, true, false, false);
  checkRope(64, 32, false, true, false);
  checkRope(128, 64, false, false, true);
  checkRope(128, 64, true, true, true);
  checkRope(80, 20, false, false, false);
  checkRope(96, 48, false, false, false);
  checkRope(256, 128, false, true, false);
  checkArgmax();
  checkSample(128256);
  checkSample(3000);
  checkSample(1000);
  checkSample(37);
}
