// Rows of e4m3 codes, each row with a scale of its own: weights as they are loaded,
// activations on their way into a product, and the ways back.
#include <cuda_fp8.h>

#include "common.cuh"

// The scale of a row is the least power of two at which its largest magnitude is at
// most 448, the largest code. It costs nothing against largest/448, for the codes are
// floating-point numbers: only those below 2^-6, a 28672nd of the largest, lose
// digits. And scaling is exact, in both directions.
constexpr uint32_t LARGEST_CODE = 0x43e00000;              // bits of 448.f
constexpr int LARGEST_CODE_EXPONENT = LARGEST_CODE >> 23;  // 127 + 8
constexpr int LEAST_ROW_EXPONENT = 1;                      // of a normal float

__device__ __forceinline__ int rowScaleExponent(float largest) {
  const uint32_t bits = __float_as_uint(largest);
  const int above = (bits & 0x7fffff) > (LARGEST_CODE & 0x7fffff);
  return max((int)(bits >> 23) - LARGEST_CODE_EXPONENT + 127 + above, LEAST_ROW_EXPONENT);
}
__device__ __forceinline__ float twoToThe(int exponent) { return __uint_as_float((uint32_t)exponent << 23); }

// The larger magnitudes of two pairs of bfloat16; what is not a number is passed over.
__device__ __forceinline__ uint32_t largerPair(uint32_t most, uint32_t x) {
  x &= 0x7fff7fff;
  asm("max.bf16x2 %0, %0, %1;" : "+r"(most) : "r"(x));
  return most;
}

__device__ __forceinline__ uint32_t encodePair(float2 x) { return __nv_cvt_float2_to_fp8x2(x, __NV_SATFINITE, __NV_E4M3); }
__device__ __forceinline__ float2 decodePair(uint32_t pair) {
  const __half2_raw h = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)pair, __NV_E4M3);
  return __half22float2(*(const __half2*)&h);
}

// The exponent of the scale of a row, found by a thread block together.
__device__ __forceinline__ int rowExponent(const uint4* line, int n) {
  __shared__ float warps[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  uint32_t most = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const uint4 v = line[i];
    most = largerPair(largerPair(largerPair(largerPair(most, v.x), v.y), v.z), v.w);
  }
  const float2 pair = unpack(most);
  float largest = fmaxf(pair.x, pair.y);
#pragma unroll
  for (int d = 16; d; d >>= 1) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, d));
  if (lane == 0) warps[warp] = largest;
  __syncthreads();
  for (int i = 0; i < (int)blockDim.x / 32; ++i) largest = fmaxf(largest, warps[i]);
  return rowScaleExponent(largest);
}

// A thread block takes a row, twice: the second time it is in the cache.
extern "C" __global__ void __launch_bounds__(512) quantize_rows(const bf16* x, uint8_t* codes, float* scales, int64_t rows, int64_t cols) {
  launchDependents();
  waitForPrevious();
  const int64_t r = blockIdx.x;
  if (r >= rows) return;
  const int n = (int)(cols / 8);
  const uint4* line = (const uint4*)(x + r * cols);
  const int exponent = rowExponent(line, n);
  if (threadIdx.x == 0) scales[r] = twoToThe(exponent);
  const float f = twoToThe(254 - exponent);  // one over the scale
  uint2* out = (uint2*)(codes + r * cols);
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const uint4 v = line[i];
    const uint32_t in[4] = {v.x, v.y, v.z, v.w};
    uint32_t c[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float2 p = unpack(in[k]);
      c[k] = encodePair(make_float2(p.x * f, p.y * f));
    }
    out[i] = make_uint2(c[0] | c[1] << 16, c[2] | c[3] << 16);
  }
}

// A bfloat16 has 8 significant bits and a code 4: what rounding to a code leaves has
// at most 4, and is a code of a scale 16 times smaller. Below 2^-6 of the scale, where
// codes have fewer bits, up to 2^-14 of it is lost.
constexpr int REST_EXPONENT = 4;

extern "C" __global__ void __launch_bounds__(512) split_rows(const bf16* x, uint8_t* codes, float* scales, int64_t rows, int64_t cols) {
  launchDependents();
  waitForPrevious();
  const int64_t r = blockIdx.x;
  if (r >= rows) return;
  const int n = (int)(cols / 8);
  const uint4* line = (const uint4*)(x + r * cols);
  const int exponent = max(rowExponent(line, n), LEAST_ROW_EXPONENT + REST_EXPONENT);
  if (threadIdx.x == 0) {
    scales[r] = twoToThe(exponent);
    scales[rows + r] = twoToThe(exponent - REST_EXPONENT);
  }
  const float f = twoToThe(254 - exponent);
  uint2 *high = (uint2*)(codes + r * cols), *low = (uint2*)(codes + (rows + r) * cols);
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const uint4 v = line[i];
    const uint32_t in[4] = {v.x, v.y, v.z, v.w};
    uint32_t c[4], rest[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float2 p = unpack(in[k]), scaled = make_float2(p.x * f, p.y * f);
      c[k] = encodePair(scaled);
      const float2 q = decodePair(c[k]);
      constexpr float UP = 1 << REST_EXPONENT;
      rest[k] = encodePair(make_float2((scaled.x - q.x) * UP, (scaled.y - q.y) * UP));
    }
    high[i] = make_uint2(c[0] | c[1] << 16, c[2] | c[3] << 16);
    low[i] = make_uint2(rest[0] | rest[1] << 16, rest[2] | rest[3] << 16);
  }
}

// Adds what the two codes of a value came to.
extern "C" __global__ void __launch_bounds__(256) sum_split(const float* sums, bf16* y, int64_t rows, int64_t cols) {
  launchDependents();
  waitForPrevious();
  const int64_t n = rows * cols / 4;
  const float4 *high = (const float4*)sums, *low = (const float4*)(sums + rows * cols);
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    const float4 a = high[i], b = low[i];
    ((uint2*)y)[i] = make_uint2(pack(a.x + b.x, a.y + b.y), pack(a.z + b.z, a.w + b.w));
  }
}

__device__ __forceinline__ uint32_t scaledPair(uint32_t pair, float scale) {
  const float2 f = decodePair(pair);
  return pack(f.x * scale, f.y * scale);
}

// Reads past the caches, which are for what it writes: a product reads that at once.
extern "C" __global__ void __launch_bounds__(256) dequantize_rows(const uint8_t* codes, const float* scales, bf16* y, int64_t rows, int64_t cols) {
  launchDependents();
  waitForPrevious();
  const int64_t r = blockIdx.x;
  if (r >= rows) return;
  const float scale = scales[r];
  const uint2* line = (const uint2*)(codes + r * cols);
  uint4* out = (uint4*)(y + r * cols);
  for (int i = threadIdx.x; i < (int)(cols / 8); i += blockDim.x) {
    const uint2 v = __ldcs(line + i);
    out[i] = make_uint4(scaledPair(v.x & 0xffff, scale), scaledPair(v.x >> 16, scale), scaledPair(v.y & 0xffff, scale), scaledPair(v.y >> 16, scale));
  }
}
