// The dense products of few rows against float64.
#pragma once
#include "../product.cu"
#include "harness.cuh"

constexpr int PRODUCT_AHEAD = 2;  // ProductAhead

// Launches as ../product.go has them. Weights of 1 byte are e4m3.
struct ProductLaunch {
  int m, n, k, bytes = 2, f32 = 0, gated = 0, normalise = 0, stages = 0;

  int rows() const { return gated ? 2 * n : n; }  // of w
  int shared() const { return stages * PRODUCT_TILE + 8 * (m <= 8 ? 8 : 16) * PRODUCT_SUM_PITCH * 4 + (int)sizeof(ProductBarriers); }
  void fit(const Device& d) {
    for (stages = 4; shared() > d.sharedPerBlock; --stages) {}
  }
  // Next has the shape of the weights of after.
  void run(const Device& d, const void* w, const bf16* x, void* y, const float* scale, float* stream, const float* norm, float* squares, const void* next, const ProductLaunch& after,
           int ahead, cudaStream_t s, bool pdl) const {
    auto kernel = bytes == 2 ? (m <= 8 ? product_bf16_8 : product_bf16_16) : (m <= 8 ? product_e4m3_8 : product_e4m3_16);
    launch(kernel, d.sms, PRODUCT_THREADS, shared(), s, pdl, (const char*)w, x, y, scale, stream, norm, squares, (const char*)next, m, n, k, f32, gated, normalise, stages, after.n,
           after.gated, after.k * after.bytes, ahead, 1e-5);
  }
};

__host__ __device__ inline double e4m3Value(uint8_t b) {
  const int e = b >> 3 & 15, f = b & 7;
  const double v = e ? ldexp(1 + f / 8.0, e - 7) : ldexp(f / 8.0, -6);
  return b & 0x80 ? -v : v;
}
__global__ void fillBytes(uint8_t* d, size_t n, uint64_t seed) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
    const uint8_t b = (uint8_t)hash32((seed << 40) + i);
    d[i] = (b & 0x7f) == 0x7f ? b ^ 1 : b;  // every number; what is none does not occur
  }
}
// sum[0] = the exact product, sum[1] = the sum of the sizes of its terms.
__global__ void productReference(const void* w, const bf16* x, double2* out, int m, int rows, int k, int bytes) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y;
  if (n >= rows) return;
  double s = 0, size = 0;
  for (int i = 0; i < k; ++i) {
    const double v = bytes == 2 ? (double)__bfloat162float(((const bf16*)w)[(int64_t)n * k + i]) : e4m3Value(((const uint8_t*)w)[(int64_t)n * k + i]);
    const double p = v * (double)__bfloat162float(x[(int64_t)r * k + i]);
    s += p;
    size += fabs(p);
  }
  out[(int64_t)r * rows + n] = make_double2(s, size);
}

struct ProductCase {
  Buffer<char> w;
  std::vector<float> scales;
  Buffer<float> scale;
  std::vector<double2> exact;  // of x and w
  ProductCase(const ProductLaunch& p, const bf16* x) : w((size_t)p.rows() * p.k * p.bytes) {
    if (p.bytes == 2)
      fillGauss<<<1024, 256>>>((bf16*)w.p, w.n / 2, p.n, 1);
    else
      fillBytes<<<1024, 256>>>((uint8_t*)w.p, w.n, p.n);
    for (int i = 0; i < p.rows(); ++i) scales.push_back(p.bytes == 2 ? 1 : (1 + (hash32(i) & 7)) / 512.f);
    scale.alloc(scales.size());
    scale.put(scales);
    Buffer<double2> ref((size_t)p.m * p.rows());
    productReference<<<dim3((p.rows() + 127) / 128, p.m), 128>>>(w.p, x, ref.p, p.m, p.rows(), p.k, p.bytes);
    CK(cudaDeviceSynchronize());
    exact = ref.get();
    for (size_t i = 0; i < exact.size(); ++i) exact[i].x *= scales[i % p.rows()], exact[i].y *= scales[i % p.rows()];
  }
};

// A sum has k/128 products of 16 terms and 8 parts added one after the other; each
// addition loses up to 2^-22 of the terms' sizes. Outputs are rounded to 2^-8.
static double productLoss(int k) { return (k / 128 + 16) * ldexp(1, -22); }
constexpr double PRODUCT_ROUNDING = 1.01 / 256;

static double productOff(double got, double want, double error) {
  const double off = fabs(got - want) / (error + 1e-30);
  return off == off ? off : INFINITY;
}

static void checkProduct(const Device& dev, ProductLaunch p) {
  const int most = p.m;
  p.fit(dev);
  Buffer<bf16> x((size_t)most * p.k);
  fillGauss<<<256, 256>>>(x.p, x.n, 7, p.gated ? 2 / sqrtf((float)p.k) : 1);  // so that gates are neither all open nor all closed
  ProductCase c(p, x.p);
  const size_t size = p.f32 ? 4 : 2;
  Buffer<char> y((size_t)most * p.n * size);
  auto run = [&](const ProductLaunch& q) {
    y.poison();
    q.run(dev, c.w.p, x.p, y.p, c.scale.p, nullptr, nullptr, nullptr, c.w.p, q, 2, 0, false);
    CK(cudaDeviceSynchronize());
    return y.get();
  };
  const auto got = run(p);
  double worst = 0;
  for (int r = 0; r < most; ++r)
    for (int n = 0; n < p.n; ++n) {
      const size_t at = (size_t)r * p.n + n;
      const double2 a = c.exact[(size_t)r * p.rows() + n];
      double want = a.x, error = a.y * productLoss(p.k);
      if (p.gated) {
        const double2 b = c.exact[at + (size_t)(r + 1) * p.n];
        const double silu = want / (1 + exp(-want));
        // The slope of silu is at most 1.1; __expf has an error of 2 units and more of its argument.
        error = 1.1 * error * fabs(b.x) + fabs(silu) * b.y * productLoss(p.k) + (2 + fabs(want)) * 3e-7 * fabs(silu * b.x);
        want = silu * b.x;
      }
      worst = std::max(worst, productOff(p.f32 ? ((const float*)got.data())[at] : toFloat(((const bf16*)got.data())[at]), want, error + (p.f32 ? 0 : PRODUCT_ROUNDING) * fabs(want)));
    }
  // The same bits again, in smaller batches, and with the smallest ring.
  bool same = true;
  for (int m : {most, most - 1, 8, 3, 1}) {
    if (m > most || m < 1) continue;
    ProductLaunch q = p;
    q.m = m;
    if (m == 3) q.stages = 2;
    same = same && memcmp(run(q).data(), got.data(), m * p.n * size) == 0;
  }
  report(worst <= 1 && same, format("product m=%d n=%d k=%d bytes=%d f32=%d gated=%d: error %.3f of the bound, same bits %d", most, p.n, p.k, p.bytes, p.f32, p.gated, worst, same));
}

// A product that adds to the stream, and one that takes the norm of it.
static void checkNormedProducts(const Device& dev, int m, int hidden, int k, int n, int bytes) {
  ProductLaunch p{m, hidden, k, bytes}, q{m, n, hidden, bytes, 1};
  q.normalise = 1;
  p.fit(dev);
  q.fit(dev);
  Buffer<bf16> x((size_t)m * k), u((size_t)m * hidden);
  fillGauss<<<256, 256>>>(x.p, x.n, 7, 3 / sqrtf((float)k));
  ProductCase first(p, x.p);
  std::vector<float> before((size_t)m * hidden), norm(hidden);
  for (size_t i = 0; i < before.size(); ++i) before[i] = gauss(i + 3) * 3;
  for (int i = 0; i < hidden; ++i) norm[i] = 1 + 0.2f * gauss(i + 5);
  Buffer<float> stream(before), dn(norm), squares((size_t)m * dev.sms), y((size_t)m * n);
  p.run(dev, first.w.p, x.p, u.p, first.scale.p, stream.p, dn.p, squares.p, nullptr, q, 0, 0, false);
  CK(cudaDeviceSynchronize());
  ProductCase second(q, u.p);
  q.run(dev, second.w.p, u.p, y.p, second.scale.p, nullptr, nullptr, squares.p, nullptr, q, 0, 0, true);
  CK(cudaDeviceSynchronize());
  const auto after = stream.get(), got = y.get();
  const auto gu = u.get();
  double sums = 0, rounded = 0, outputs = 0;
  for (int r = 0; r < m; ++r) {
    double squared = 0;
    for (int i = 0; i < hidden; ++i) {
      const size_t at = (size_t)r * hidden + i;
      const double v = before[at] + first.exact[at].x, error = first.exact[at].y * productLoss(k) + 1e-7 * (fabs(v) + fabs(first.exact[at].x));
      sums = std::max(sums, productOff(after[at], v, error));
      rounded = std::max(rounded, productOff(toFloat(gu[at]), (double)after[at] * norm[i], PRODUCT_ROUNDING * fabs(after[at] * norm[i])));
      squared += (double)after[at] * after[at];
    }
    const double f = 1 / sqrt(squared / hidden + 1e-5);
    for (int i = 0; i < n; ++i) {
      const double2 a = second.exact[(size_t)r * n + i];
      outputs = std::max(outputs, productOff(got[(size_t)r * n + i], a.x * f, a.y * f * productLoss(hidden) + 2e-6 * fabs(a.x * f)));  // rsqrtf, and the parts of the squares
    }
  }
  report(sums <= 1 && rounded <= 1 && outputs <= 1, format("products around a norm m=%d hidden=%d k=%d n=%d bytes=%d: stream %.3f, rounding %.3f, outputs %.3f of the bound", m, hidden, k, n, bytes, sums, rounded, outputs));
}

static void checkProducts(const Device& dev) {
  struct S { int n, k; };
  for (int bytes : {2, 1}) {
    for (int m : {1, 2, 3, 5, 8, 9, 13, 16}) checkProduct(dev, {m, 576, 576, bytes});
    for (S s : {S{1, 64}, S{31, 64}, S{130, 192}, S{1000, 1536}, S{4229, 2112}, S{6144, 4096}, S{4096, 11008}, S{4096, 14336}})
      for (int m : {1, 8, 16}) checkProduct(dev, {m, s.n, s.k, bytes, m == 8});
    for (S s : {S{1, 64}, S{1536, 576}, S{2777, 1088}, S{14336, 4096}})
      for (int m : {1, 5, 16}) checkProduct(dev, {m, s.n, s.k, bytes, 0, 1});
    for (int m : {1, 7, 16}) {
      checkNormedProducts(dev, m, 64, 192, 33, bytes);
      checkNormedProducts(dev, m, 576, 1536, 960, bytes);
      checkNormedProducts(dev, m, 4096, 14336, 6144, bytes);
    }
  }
}
