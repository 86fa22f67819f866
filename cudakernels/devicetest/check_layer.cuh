// The element-wise kernels against float64 on the CPU.
#pragma once
#include "../fill.cu"
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
  bool ok = t.get() == tokens;
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
  launch(rope_append, ropeGrid(rows, all, hd, pairs, interleaved, false), 128, 0, 0, false, dqkv.p, bias ? db.p : nullptr, norm ? dqn.p : nullptr, norm ? dkn.p : nullptr, da.p, dm.p, c.dSeqs.p,
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

// The bits of weights.Generated, written out once more; the first elements are those
// of its own test.
static uint16_t generated(uint64_t key, float scale, int64_t i) {
  uint64_t x = key + (uint64_t)(i / 4 + 1) * 0x9E3779B97F4A7C15ull;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ x >> 27) * 0x94D049BB133111EBull;
  x ^= x >> 31;
  const bf16 b = toBf16((float)(2 * (int16_t)(x >> 16 * (i % 4)) + 1) * (scale / 65536));
  uint16_t bits;
  memcpy(&bits, &b, 2);
  return bits;
}

static void checkFill(int64_t first, int64_t n, float scale) {
  const uint64_t key = 0x0123456789abcdef;
  Buffer<bf16> d(n + 8);
  launch(fill_random, 8 * 132, 256, 0, 0, false, d.p, first, n, key, (double)scale);
  const auto got = d.get();
  bool ok = true;
  for (int64_t i = 0; i < n + 8; ++i) {
    uint16_t bits;
    memcpy(&bits, &got[i], 2);
    ok = ok && bits == (i < n ? generated(key, scale, first + i) : 0xffff);
  }
  report(ok, format("fill_random elements %lld to %lld, scale %g", (long long)first, (long long)(first + n), scale));
}

static void checkRead(int64_t words) {
  std::vector<uint32_t> v(words), before(READ_SUMS);
  uint32_t want = 0, got = 0;
  for (int64_t i = 0; i < words; ++i) want ^= v[i] = hash32(i);
  for (int i = 0; i < READ_SUMS; ++i) want ^= before[i] = hash32(i + 12345);
  Buffer<uint32_t> d(v), sums(before);
  const int tile = READ_THREADS * READ_AHEAD * 4;
  launch(read_memory, (int)((words + tile - 1) / tile), READ_THREADS, 0, 0, false, (const uint4*)d.p, 4 * words, sums.p);
  for (uint32_t x : sums.get()) got ^= x;
  report(got == want, format("read_memory %lld bytes", (long long)(4 * words)));
}

static void checkLayer() {
  checkFill(0, 8, 1);
  checkFill(8, 4096 * 1000, 0.0270633f);
  checkFill((int64_t)3 << 31, 1 << 20, 1.7320508f);
  checkRead(4);
  checkRead(4 * 8191);
  checkRead(4 * 1234567);
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
  checkRope(64, 32, false, true, true);
  checkRope(128, 64, false, true, false);
  checkRope(128, 32, false, false, false);
  checkRope(256, 128, false, true, false);
}
