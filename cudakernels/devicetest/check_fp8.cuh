// e4m3 pages: what rope_append_fp8 leaves in them, how codes are read, and what they
// cost the attention.
#pragma once
#include "check_attention.cuh"

// Every code through both conversions, every float through the other way.
__global__ void convertCodes(uint32_t* half, uint32_t* scaled, float scale) {
  const uint32_t i = threadIdx.x, x = i * 0x01010101u;
  uint32_t odd;
  unpackHalf(x, half[i], odd);
  ScaleBF16(scale).unpack(x, scaled[i], odd);
}
__global__ void convertFloats(const float* x, uint8_t* codes, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) codes[i] = (uint8_t)packE4M3(x[i], 0);
}

static void checkConversions(const Device& dev) {
  bool ok = true;
  for (float scale : {0.015625f, 1.f, 128.f}) {
    Buffer<uint32_t> half(256), scaled(256);
    convertCodes<<<1, 256>>>(half.p, scaled.p, scale);
    const auto h = half.get(), s = scaled.get();
    for (int i = 0; i < 256; ++i) {
      __half_raw raw;
      raw.x = (uint16_t)h[i];
      const double want = decodeE4M3(i), unit = dev.hopper ? 1 : 256, x = __half2float(__half(raw)) * unit;
      bf16 b;
      memcpy(&b, &s[i], 2);
      const bool nan = want != want;
      ok = ok && (nan ? !dev.hopper || x != x : x == want) && (nan || toFloat(b) == want * scale) && h[i] >> 16 == (h[i] & 0xffff) && s[i] >> 16 == (s[i] & 0xffff);
    }
  }
  std::vector<float> x{0, -0.f, 448, 463, 464, 465, 1e30f, -INFINITY, INFINITY, NAN, -447, 0x1p-9f, 0x1p-10f, 0x1.000002p-10f, 0x1.8p-9f, -0x1p-6f, 0x1.dffffep-7f, 0x1p-40f};
  for (int i = 0; i < 200000; ++i) {
    const uint32_t bits = hash32(i);
    float f;
    memcpy(&f, &bits, 4);
    x.push_back(i % 2 ? f : ldexpf(gauss(i), (int)(bits % 24) - 14));
    if (i < 126 * 2) x.push_back((float)(decodeE4M3(i / 2) + decodeE4M3(i / 2 + 1)) / 2 * (i % 2 ? 1 : -1));  // ties
  }
  Buffer<float> dx(x);
  Buffer<uint8_t> codes(x.size());
  convertFloats<<<64, 256>>>(dx.p, codes.p, (int)x.size());
  const auto got = codes.get();
  size_t wrong = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const uint8_t want = encodeE4M3(x[i]);
    wrong += x[i] != x[i] ? (got[i] & 127) != 127 : got[i] != want;
  }
  report(ok && !wrong, format("e4m3 conversions: codes %d, %zu floats of %zu wrong", ok, wrong, x.size()));
}

// The Hadamard matrix of order v.size() over its square root times v, entry by entry.
static std::vector<double> hadamardProduct(const std::vector<double>& v) {
  std::vector<double> y(v.size(), 0.0);
  for (size_t i = 0; i < v.size(); ++i)
    for (size_t j = 0; j < v.size(); ++j) {
      bool odd = false;
      for (size_t common = i & j; common; common >>= 1) odd ^= common & 1;
      y[i] += (odd ? -v[j] : v[j]) / sqrt((double)v.size());
    }
  return y;
}

// Sequences that enter a block with the launch, that continue one, and that span three.
static void checkRopeFP8(int hd, int pairs, bool interleaved, bool bias, bool norm) {
  const int layers = 2, layer = 1, kv = 2, group = 3, qh = kv * group, all = qh + 2 * kv;
  Cache c;
  c.fp8 = true;
  c.layers = layers; c.kv = kv; c.group = group; c.hd = hd; c.decodes = 2;
  c.rules.assign(layers * kv, Rule{0, 1});
  c.seqs = {{0, 0, 1, 128, 0, 32, 0, -1}, {2, 1, 1, 70, 0, 32, 0, -1}, {1, 2, 140, 150, 0, 32, 0, 0}};
  layOut(c, hd);
  const auto before = c.pool.get();
  std::vector<Row> meta(c.rows + 2, Row{-1, 0});  // the last two are padding
  for (int s = 0; s < 3; ++s)
    for (int i = 0; i < c.seqs[s].len; ++i) meta[c.seqs[s].row + i] = {s, c.seqs[s].start + i};
  const int rows = (int)meta.size();
  // Magnitudes of first tokens from nothing to too much, so that both bounds of a scale
  // and saturation are met.
  std::vector<bf16> qkv((size_t)rows * all * hd);
  for (size_t i = 0; i < qkv.size(); ++i) {
    const size_t head = i / hd, r = head / all;
    const bool first = r < (size_t)c.rows && meta[r].pos % BLOCK == 0;
    qkv[i] = toBf16(gauss(i) * (first ? ldexpf(1, (int)(head % 7 * 5) - 18) : 2));
  }
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
  launch(rope_append_fp8, dim3(rows, (all + 3) / 4), 128, 0, 0, false, dqkv.p, bias ? db.p : nullptr, norm ? dqn.p : nullptr, norm ? dkn.p : nullptr, da.p, dm.p,
         c.dSeqs.p, c.dTable.p, c.pool.p, q.p, (char*)tiles.p, rows, qh, kv, hd, pairs, (int)interleaved, layer, c.heads, c.maxBlocks, 1e-6);
  auto after = c.pool.get();
  auto expected = before;  // every byte of the pool
  // Biased and normalised, then, if it is no value, rotated twice.
  auto head = [&](int r, int h, bool rotated) {
    const bool isQ = h < qh, isK = !isQ && h < qh + kv;
    std::vector<double> v(c.stored, 0.0), o;
    double sum = 0;
    for (int d = 0; d < hd; ++d) {
      v[d] = toFloat(qkv[((size_t)r * all + h) * hd + d]) + (bias ? (double)b[h * hd + d] : 0);
      sum += v[d] * v[d];
    }
    if (norm && (isQ || isK))
      for (int d = 0; d < hd; ++d) v[d] *= (isQ ? qn : kn)[d] / sqrt(sum / hd + 1e-6);
    if (!(isQ || isK) || !rotated) return v;
    o = v;
    for (int i = 0; i < pairs; ++i) {
      const int x = interleaved ? 2 * i : i, y = interleaved ? 2 * i + 1 : i + pairs;
      const double cs = angles[(meta[r].pos * pairs + i) * 2], sn = angles[(meta[r].pos * pairs + i) * 2 + 1];
      o[x] = v[x] * cs - v[y] * sn;
      o[y] = v[x] * sn + v[y] * cs;
    }
    return hadamardProduct(o);
  };
  // What float32 arithmetic may be off by. A rotated number is a sum of all of the head's:
  // each went through some 20 roundings of 2^-24 by then, and their magnitudes over
  // sqrt(n) sum to at most the length of the head.
  auto slack = [&](const std::vector<double>& v, int d) {
    double sum = 0;
    for (double x : v) sum += x * x;
    return fabs(v[d]) * 1e-5 + 1e-6 + 20 * 0x1p-24 * sqrt(sum);
  };
  const auto gq = q.get(), gt = tiles.get();
  size_t wrongScales = 0, wrong = 0, wrongQueries = 0;
  for (int r = 0; r < c.rows; ++r) {
    const Seq& s = c.seqs[meta[r].seq];
    const int pos = meta[r].pos, token = pos % BLOCK, first = pos - token;
    for (int h = 0; h < qh; ++h) {
      const auto want = head(r, h, true);
      const char* tile = (const char*)&gt[((size_t)(s.tile < 0 ? 0 : s.tile + pos / BLOCK - s.start / BLOCK) * qh + h) * BLOCK * c.stored];
      for (int d = 0; d < c.stored; ++d) {
        const double got = toFloat(s.tile < 0 ? gq[((size_t)meta[r].seq * qh + h) * c.stored + d] : *(const bf16*)(tile + tileOffset(token, d)));
        wrongQueries += !(fabs(got - want[d]) <= fabs(want[d]) / 256 + slack(want, d));  // one rounding to bfloat16
      }
    }
    for (int h = qh; h < all; ++h) {
      const int value = h >= qh + kv;
      const size_t page = c.table[((size_t)s.slot * c.heads + layer * kv + (h - qh) % kv) * c.maxBlocks + pos / BLOCK], base = page * pageBytes(hd, true);
      float scale = scalesOf(&expected[base], c.stored)[value];
      if (first >= s.start) {  // the launch appends the block's first token
        double top = 0;
        for (double x : head(r - token, h, false)) top = std::max(top, fabs(x));
        scale = (float)ldexp(1, std::min(std::max((int)std::floor(std::log2(top)) - 1, -6), 7));
        scalesOf(&expected[base], c.stored)[value] = scale;
      }
      wrongScales += scalesOf(&after[base], c.stored)[value] != scale;
      const auto want = head(r, h, true);
      for (int d = 0; d < c.stored; ++d) {
        const size_t at = base + value * tileBytesE4M3(c.stored) + offsetE4M3(token, d, c.stored);
        // It may be on the other side of a tie.
        const double off = slack(want, d);
        const uint8_t got = after[at], low = encodeE4M3((want[d] - off) / scale), high = encodeE4M3((want[d] + off) / scale);
        wrong += !(decodeE4M3(got) >= decodeE4M3(low) && decodeE4M3(got) <= decodeE4M3(high));
        expected[at] = after[at];
      }
      if (pos == s.start + s.len - 1 && first >= s.start)  // the rest of a page that the step entered is zero
        memset(&expected[base + value * tileBytesE4M3(c.stored) + (token + 1) * c.stored], 0, (BLOCK - 1 - token) * c.stored);
    }
  }
  const bool untouched = memcmp(expected.data(), after.data(), after.size()) == 0;
  report(!wrong && !wrongScales && !wrongQueries && untouched,
         format("rope_append_fp8 hd=%d pairs=%d interleaved=%d bias=%d norm=%d: %zu codes, %zu scales and %zu elements of queries wrong, rest of the pool %d", hd, pairs, interleaved, bias, norm, wrong,
                wrongScales, wrongQueries, untouched));
}

// Attention over e4m3 pages against the reference over the same numbers in bfloat16.
// Rounding to e4m3 is wrong by 2^-4/sqrt(3) of the power of two below a number on
// average, hence by 0.036 of the number at most and by 0.026 over all mantissas. That of
// the values goes to the output as it is: many keys average the errors as they average
// the values. That of the keys moves scores of unit variance by as much, and with them
// weights and the output. Together at most 0.036 * sqrt(2) = 0.051; twice that for the
// worst row. Far less would mean that something else than e4m3 was read.
static void checkCost(const Device& dev, int hd, int group, int length) {
  Cache exact, coded;
  for (Cache* c : {&exact, &coded}) {
    c->fp8 = c == &coded;
    c->layers = 1; c->kv = 4; c->group = group; c->hd = hd; c->decodes = 1;
    c->rules.assign(4, Rule{0, 1});
    c->seqs.push_back({0, 0, 1, length - 1, 0, 0, 0, -1});
    layOut(*c, 5);
  }
  const int qh = 4 * group;
  Buffer<bf16> q((size_t)qh * exact.stored), out((size_t)qh * hd);
  std::vector<bf16> hq(q.n, toBf16(0));
  for (size_t i = 0; i < q.n; ++i)
    if ((int)(i % exact.stored) < hd) hq[i] = toBf16(gauss(i + 77));
  q.put(hq);
  Buffer<char> plan;
  planDecode(dev, coded, plan);
  const size_t words = decodeWorkspaceWords(dev, group, hd, true);
  Buffer<float> ws(words * 2);
  runDecode(dev, coded, q, out, 0, ws.p, ws.p + words, plan.p, false);
  CK(cudaDeviceSynchronize());
  std::vector<RefRow> rows;
  for (int h = 0; h < qh; ++h) rows.push_back({h / group, 0, length - 1, (int64_t)h * exact.stored, -1, (int64_t)h * hd});
  double total, worst;
  compareRows(exact, q.p, out, rows, total, worst);
  report(total < 0.051 && total > 0.02 && worst < 0.102, format("cost of e4m3 pages hd=%d group=%d length=%d: rel %.2e worst row %.2e", hd, group, length, total, worst));
}

static void checkFP8(const Device& dev) {
  checkConversions(dev);
  checkRopeFP8(64, 32, false, false, false);
  checkRopeFP8(128, 64, false, true, true);
  checkRopeFP8(128, 64, true, false, false);
  checkRopeFP8(80, 20, false, false, false);
  checkRopeFP8(96, 48, false, false, false);
  checkRopeFP8(256, 128, false, true, true);
  for (int hd : {64, 80, 128, 256}) checkCost(dev, hd, 3, 700);
}
