// Weights that are computed where they are used, and the plain read of memory that
// figures are compared with.
#include "common.cuh"

// Four numbers of 16 bits: weights.Generated in Go computes the same ones.
__device__ __forceinline__ uint64_t fourRandom(uint64_t key, uint64_t group) {
  uint64_t x = key + (group + 1) * 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// Odd multiples of 2^-16 between -1 and 1, times the scale, which the caller has
// multiplied by 2^-16: one exact conversion, one product, one rounding to bfloat16.
__device__ __forceinline__ uint32_t twoScaled(uint32_t bits, float scale) {
  const float lo = (float)(2 * (int)(int16_t)(uint16_t)bits + 1), hi = (float)(2 * (int)(int16_t)(uint16_t)(bits >> 16) + 1);
  return pack(__fmul_rn(lo, scale), __fmul_rn(hi, scale));
}

// first and n are multiples of 8, so that a thread stores 16 bytes at a time.
extern "C" __global__ void __launch_bounds__(256) fill_random(bf16* out, int64_t first, int64_t n, uint64_t key, double scale) {
  launchDependents();
  waitForPrevious();
  const float f = (float)scale * 0x1p-16f;
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n / 8; i += step) {
    const uint64_t group = (uint64_t)(first / 4 + 2 * i), a = fourRandom(key, group), b = fourRandom(key, group + 1);
    ((uint4*)out)[i] = make_uint4(twoScaled((uint32_t)a, f), twoScaled((uint32_t)(a >> 32), f), twoScaled((uint32_t)b, f), twoScaled((uint32_t)(b >> 32), f));
  }
}

// Reads n bytes, a multiple of 16, once and adds the exclusive or of their 32-bit
// words to sums[1024], each warp to one of them. Thread blocks of one tile of 64 KiB
// that come and go read 3 % faster on an H100 and 1 % on an H200 than resident ones that
// stride, with plain loads and with bulk copies alike; those of tiles of 32 KiB read 0.7 %
// faster still on an H100, but on an H200 22 % slower.
constexpr int READ_THREADS = 512, READ_AHEAD = 8, READ_SUMS = 1024;
extern "C" __global__ void __launch_bounds__(READ_THREADS) read_memory(const uint4* data, int64_t n, uint32_t* sums) {
  launchDependents();
  waitForPrevious();
  const int64_t words = n / 16, tile = blockIdx.x * (int64_t)(READ_THREADS * READ_AHEAD) + threadIdx.x;
  uint4 v[READ_AHEAD];
#pragma unroll
  for (int k = 0; k < READ_AHEAD; ++k) {
    const int64_t i = tile + k * READ_THREADS;
    v[k] = i < words ? __ldcs(data + i) : make_uint4(0, 0, 0, 0);
  }
  uint32_t x = 0;
#pragma unroll
  for (int k = 0; k < READ_AHEAD; ++k) x ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  x = __reduce_xor_sync(0xffffffffu, x);
  constexpr int warps = READ_THREADS / 32;
  if (threadIdx.x % 32 == 0) atomicXor(sums + (blockIdx.x * warps + threadIdx.x / 32) % READ_SUMS, x);
}
