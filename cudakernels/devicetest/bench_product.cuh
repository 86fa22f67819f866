// The dense products of few rows as a share of a plain read: each alone, and all of a
// decode step in order. There a kernel that takes as long as RoPE or an attention
// without context stands for both of them.
#pragma once
#include "bench.cuh"
#include "check_product.cuh"

struct ProductChain {
  const Device& dev;
  const char* weights;  // bytes of them, taken in turn so that none is in a cache
  size_t bytes;
  bf16 *x, *y;
  float *stream, *norm, *squares, *scale;
};

// Median seconds of a graph of the products, each of which fetches the next ahead.
// Layers have four; two small kernels are before the second one.
static double timeProducts(const ProductChain& c, const std::vector<ProductLaunch>& products, bool layers) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CK(cudaStreamCreate(&stream));
  CK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  size_t at = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const ProductLaunch &p = products[i], &next = products[(i + 1) % products.size()];
    const size_t size = (size_t)p.rows() * p.k * p.bytes, after = (size_t)next.rows() * next.k * next.bytes;
    const size_t follows = at + size + after > c.bytes || i + 1 == products.size() ? 0 : at + size;
    if (layers && i % 4 == 1)
      for (int r = 0; r < 2; ++r) launch(rmsnorm, p.m, 512, 0, stream, true, c.stream, c.y, c.norm, c.x, nullptr, p.m, p.k, 1e-5);
    const bool adds = layers && i % 4 % 2 == 1;
    p.run(c.dev, c.weights + at, c.x, c.y, c.scale, adds ? c.stream : nullptr, c.norm, c.squares, c.weights + follows, next, PRODUCT_AHEAD, stream, i > 0);
    at = follows;
  }
  CK(cudaStreamEndCapture(stream, &graph));
  CK(cudaGraphInstantiate(&exec, graph, 0));
  const double s = median([&] { CK(cudaGraphLaunch(exec, stream)); }, 0.01, 0.03, 30, stream);
  CK(cudaGraphExecDestroy(exec));
  CK(cudaGraphDestroy(graph));
  CK(cudaStreamDestroy(stream));
  return s;
}

static void benchProducts(const Device& dev, double rate) {
  constexpr int LAYERS = 8;
  Buffer<char> w((size_t)6 << 30);
  fillGauss<<<2048, 256>>>((bf16*)w.p, w.n / 2, 1, 0.02f);
  Buffer<bf16> x(16 * 16384), y((size_t)16 * 130000 * 2);
  Buffer<float> stream(16 * 4096), norm(4096), squares(16 * dev.sms), scale(130000);
  x.zero(); y.zero(); stream.zero(); norm.zero(); squares.zero(); scale.zero();
  const ProductChain c{dev, w.p, w.n, x.p, y.p, stream.p, norm.p, squares.p, scale.p};
  struct Shape { int n, k, gated, normalise; };
  struct Model { const char* name; std::vector<Shape> layer; Shape output; };
  for (const Model& model : {Model{"llama-3-8b", {{6144, 4096, 0, 1}, {4096, 4096}, {14336, 4096, 1, 1}, {4096, 14336}}, {128256, 4096}},
                             Model{"vicuna-7b", {{12288, 4096, 0, 1}, {4096, 4096}, {11008, 4096, 1, 1}, {4096, 11008}}, {32000, 4096}}})
    for (int bytes : {2, 1})
      for (int m : {1, 2, 4, 8, 16}) {
        auto add = [&](std::vector<ProductLaunch>& to, Shape s, bool f32) {
          ProductLaunch p{m, s.n, s.k, bytes, f32, s.gated, s.normalise};
          p.fit(dev);
          to.push_back(p);
          return (double)p.rows() * s.k * bytes;
        };
        auto line = [&](const std::string& what, double read, double s) {
          printf("product %s, %d rows, weights of %d bytes: %.1f us, %.3f TB/s, %.3f of a plain read\n", what.c_str(), m, bytes, s * 1e6, read / s / 1e12, read / s / rate);
          fflush(stdout);
        };
        std::vector<ProductLaunch> all;
        double read = 0;
        for (int l = 0; l < LAYERS; ++l)
          for (Shape s : model.layer) read += add(all, s, false);
        read += add(all, model.output, true);
        line(format("%s, %d layers and output", model.name, LAYERS), read, timeProducts(c, all, true));
        for (Shape s : model.layer) {
          std::vector<ProductLaunch> one;
          double r = 0;
          while (r < 1.2e9) r += add(one, s, false);
          line(format("%dx%d, %d in a row", one[0].rows(), s.k, (int)one.size()), r, timeProducts(c, one, false));
        }
      }
}
