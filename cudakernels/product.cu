// The instances of the dense products of few rows: weights in bfloat16 or e4m3, up to
// 8 or 16 rows.
#include "product.cuh"

#define PRODUCT(NAME, E, NT)                                                                                                    \
  extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, 1) NAME(                                                        \
      const char* w, const bf16* x, void* y, const float* scale, float* stream, const float* norm, float* squares,              \
      const char* next, int64_t m, int64_t n, int64_t k, int64_t f32, int64_t gated, int64_t normalise, int64_t stages,         \
      int64_t nextRows, int64_t nextGated, int64_t nextRowBytes, int64_t nextTiles, double eps) {                               \
    product<E, NT>({w, x, y, scale, stream, norm, squares, next, (int)m, (int)n, (int)k, (int)f32, (int)gated, (int)normalise,  \
                    (int)stages, (int)nextRows, (int)nextGated, (int)nextTiles, nextRowBytes, (float)eps});                     \
  }
PRODUCT(product_bf16_8, bf16, 1)
PRODUCT(product_bf16_16, bf16, 2)
PRODUCT(product_e4m3_8, e4m3, 1)
PRODUCT(product_e4m3_16, e4m3, 2)
