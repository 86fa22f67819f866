// Quantised rows against an encoder that knows e4m3 from its definition alone.
#pragma once
#include "../quantize.cu"
#include "harness.cuh"

// The value of a code: sign, 4 bits of exponent with bias 7, 3 of fraction; no
// infinities, and 0x7f is not a number.
static double codeValue(int code) {
  const int e = code >> 3 & 15, f = code & 7;
  if ((code & 0x7f) == 0x7f) return NAN;
  const double x = e ? ldexp(8 + f, e - 10) : ldexp(f, -9);
  return code & 0x80 ? -x : x;
}
// The nearest code by search, the even one of two; saturates.
static int nearestCode(double x) {
  if (x != x) return 0x7f;
  int best = 0;
  for (int c = 1; c < 0x7f; ++c) {
    const double d = fabs(fabs(x) - codeValue(c)), b = fabs(fabs(x) - codeValue(best));
    if (d < b || (d == b && c % 2 == 0)) best = c;
  }
  return best | (std::signbit(x) ? 0x80 : 0);
}

// Rows of normal values, of one binade, of zeros, of magnitudes from 2^-126 up, and
// with a value that is not a number; every code is hit, and ties.
static std::vector<bf16> quantizeRows(int rows, int cols) {
  std::vector<bf16> x((size_t)rows * cols);
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < cols; ++i) {
      const size_t at = (size_t)r * cols + i;
      float v = gauss(at) * powf(2, (float)(r % 9 - 4));
      if (r % 7 == 1) v = i % 2 ? 1.f : ldexpf(1 + hash32(at) % 128 / 128.f, -(int)(hash32(at + 1) % 20));
      if (r % 7 == 2) v = 0;
      if (r % 7 == 3) v = ldexpf(gauss(at), -124);
      if (r % 7 == 4) v = i == cols / 2 ? NAN : -ldexpf(1 + i % 128 / 128.f, i % 16);
      if (r % 7 == 5) v = i == 0 ? 448.f : codeValue(hash32(at) % 0x7f) + (i % 3 - 1) * ldexpf(1, -10);
      x[at] = toBf16(v);
    }
  return x;
}

static void checkQuantize(int rows, int cols) {
  const auto x = quantizeRows(rows, cols);
  Buffer<bf16> d(x), back(x.size()), sum(x.size());
  Buffer<uint8_t> codes(x.size());
  Buffer<float> scales(rows), splitScales(2 * rows), parts(2 * x.size());
  Buffer<uint8_t> split(2 * x.size());
  const int threads = std::min(std::max((int)roundUp(cols / 8, 32), 64), 512);
  launch(quantize_rows, rows, threads, 0, 0, false, d.p, codes.p, scales.p, rows, cols);
  launch(dequantize_rows, rows, 256, 0, 0, true, codes.p, scales.p, back.p, rows, cols);
  launch(split_rows, rows, threads, 0, 0, true, d.p, split.p, splitScales.p, rows, cols);
  CK(cudaDeviceSynchronize());
  const auto c = codes.get();
  const auto s = scales.get();
  const auto b = back.get();
  int wrong = 0;
  for (int r = 0; r < rows; ++r) {
    double largest = 0;
    for (int i = 0; i < cols; ++i) largest = fmax(largest, fabs((double)toFloat(x[(size_t)r * cols + i])));
    double scale = ldexp(1, -126);
    while (largest > 448 * scale) scale *= 2;
    wrong += s[r] != scale;
    for (int i = 0; i < cols; ++i) {
      const size_t at = (size_t)r * cols + i;
      const int want = nearestCode(toFloat(x[at]) / scale);
      wrong += (want & 0x7f) == 0x7f ? (c[at] & 0x7f) != 0x7f : c[at] != want;
      const double v = codeValue(c[at]) * scale, got = toFloat(b[at]);
      wrong += v == v ? got != v && fabs(v) >= ldexp(1, -126) : got == got;
    }
  }
  report(wrong == 0, format("quantize_rows and dequantize_rows %d x %d: %d wrong", rows, cols, wrong));

  // Split, a value of at least 2^-6 of the scale is the sum of its codes.
  const auto sc = split.get();
  const auto ss = splitScales.get();
  std::vector<float> p(2 * x.size());
  wrong = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t r = i / cols;
    const double high = codeValue(sc[i]) * ss[r], low = codeValue(sc[x.size() + i]) * ss[rows + r], want = toFloat(x[i]);
    const double lost = fabs(want) < ldexp(ss[r], -6) ? ldexp(ss[r], -14) : 0;
    wrong += want == want ? !(fabs(high + low - want) <= lost) : high == high;
    p[i] = (float)high;
    p[x.size() + i] = (float)low;
  }
  report(wrong == 0, format("split_rows %d x %d: %d wrong", rows, cols, wrong));
  parts.put(p);
  launch(sum_split, 132, 256, 0, 0, true, parts.p, sum.p, rows, cols);
  const auto y = sum.get();
  wrong = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const float want = toFloat(toBf16(p[i] + p[x.size() + i])), got = toFloat(y[i]);
    wrong += want == want ? got != want : got == got;
  }
  report(wrong == 0, format("sum_split %d x %d: %d wrong", rows, cols, wrong));
}

static void checkQuantize() {
  for (int cols : {8, 16, 72, 576, 1536, 4096, 4104, 14336, 28672}) checkQuantize(23, cols);
  checkQuantize(3000, 64);
}

// Bytes read and written a second, of a piece of weights and of activations.
static void benchQuantize() {
  for (auto shape : {std::pair<int, int>{2048, 4096}, {8192, 4096}, {64, 14336}, {2048, 14336}}) {
    const size_t n = (size_t)shape.first * shape.second;
    Buffer<bf16> x(n), y(n);
    Buffer<uint8_t> codes(n);
    Buffer<float> scales(shape.first);
    fillGauss<<<2048, 256>>>(x.p, n, 1, 1.f);
    cudaEvent_t e[3];
    for (auto& v : e) CK(cudaEventCreate(&v));
    float best[2] = {1e9f, 1e9f};
    for (int i = 0; i < 10; ++i) {
      CK(cudaEventRecord(e[0]));
      launch(quantize_rows, shape.first, 512, 0, 0, false, x.p, codes.p, scales.p, shape.first, shape.second);
      CK(cudaEventRecord(e[1]));
      launch(dequantize_rows, shape.first, 256, 0, 0, false, codes.p, scales.p, y.p, shape.first, shape.second);
      CK(cudaEventRecord(e[2]));
      CK(cudaDeviceSynchronize());
      for (int k = 0; k < 2; ++k) {
        float ms;
        CK(cudaEventElapsedTime(&ms, e[k], e[k + 1]));
        best[k] = std::min(best[k], ms);
      }
    }
    for (auto& v : e) CK(cudaEventDestroy(v));
    printf("quantize %d x %d: %.1f us, %.0f GB/s; back %.1f us, %.0f GB/s\n", shape.first, shape.second, best[0] * 1e3, 3e-6 * n / best[0],
           best[1] * 1e3, 3e-6 * n / best[1]);
  }
}
