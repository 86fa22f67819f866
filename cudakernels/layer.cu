// The element-wise kernels of a layer. The residual stream is float32.
#include "plan.cuh"

extern "C" __global__ void embed(int* tokens, const int* choices, const bf16* table, float* x, int64_t rows, int64_t hidden, int64_t vocab) {
  launchDependents();
  waitForPrevious();
  const int64_t r = blockIdx.x;
  if (r >= rows) return;
  int token = tokens[r];
  if (token < 0) {
    token = choices[-1 - token];
    __syncthreads();
    if (threadIdx.x == 0) tokens[r] = token;
  }
  if (token < 0 || token >= vocab) token = 0;
  const uint4* src = (const uint4*)(table + token * hidden);
  float4* dst = (float4*)(x + r * hidden);
  for (int i = threadIdx.x; i < hidden / 8; i += blockDim.x) {
    const uint4 v = __ldg(src + i);
    const float2 a = unpack(v.x), b = unpack(v.y), c = unpack(v.z), d = unpack(v.w);
    dst[2 * i] = make_float4(a.x, a.y, b.x, b.y);
    dst[2 * i + 1] = make_float4(c.x, c.y, d.x, d.y);
  }
}

// A thread keeps 8 elements at a time, twice at most: 1024 threads reach 16384.
extern "C" __global__ void __launch_bounds__(1024) rmsnorm(float* x, const bf16* delta, const float* weight, bf16* y, const int* index,
                                                           int64_t rows, int64_t hidden, double eps) {
  constexpr int PASSES = 2;
  __shared__ float sums[32];
  const int64_t r = blockIdx.x;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n = (int)hidden / 8;
  float v[PASSES][8], w[PASSES][8];
  launchDependents();
#pragma unroll
  for (int p = 0; p < PASSES; ++p) {  // weights do not wait
    const int i = threadIdx.x + p * blockDim.x;
    if (i < n) {
      *(float4*)&w[p][0] = __ldg((const float4*)weight + 2 * i);
      *(float4*)&w[p][4] = __ldg((const float4*)weight + 2 * i + 1);
    }
  }
  waitForPrevious();
  if (r >= rows) return;
  const int64_t row = index ? index[r] : r;
  float4* line = (float4*)(x + row * hidden);
  float sum = 0;
#pragma unroll
  for (int p = 0; p < PASSES; ++p) {
    const int i = threadIdx.x + p * blockDim.x;
    if (i >= n) continue;
    *(float4*)&v[p][0] = line[2 * i];
    *(float4*)&v[p][4] = line[2 * i + 1];
    if (delta) {
      const uint4 d = ((const uint4*)(delta + row * hidden))[i];
      const uint32_t u[4] = {d.x, d.y, d.z, d.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 f = unpack(u[k]);
        v[p][2 * k] += f.x;
        v[p][2 * k + 1] += f.y;
      }
      if (!index) {
        line[2 * i] = *(float4*)&v[p][0];
        line[2 * i + 1] = *(float4*)&v[p][4];
      }
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) sum += v[p][k] * v[p][k];
  }
  sum = warpSum(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  sum = warpSum(lane < blockDim.x / 32 ? sums[lane] : 0.f);
  const float f = rsqrtf(sum / (float)hidden + (float)eps);
#pragma unroll
  for (int p = 0; p < PASSES; ++p) {
    const int i = threadIdx.x + p * blockDim.x;
    if (i >= n) continue;
    uint32_t u[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) u[k] = pack(v[p][2 * k] * f * w[p][2 * k], v[p][2 * k + 1] * f * w[p][2 * k + 1]);
    ((uint4*)(y + r * hidden))[i] = make_uint4(u[0], u[1], u[2], u[3]);
  }
}

extern "C" __global__ void silu_mul(const bf16* gateUp, bf16* y, int64_t rows, int64_t ffn) {
  launchDependents();
  waitForPrevious();
  const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, n = ffn / 8;
  if (r >= rows || i >= n) return;
  const uint4* line = (const uint4*)gateUp + r * 2 * n;
  const uint4 g = line[i], u = line[n + i];
  const uint32_t gs[4] = {g.x, g.y, g.z, g.w}, us[4] = {u.x, u.y, u.z, u.w};
  uint32_t out[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float2 a = unpack(gs[k]), b = unpack(us[k]);
    out[k] = pack(a.x / (1.f + __expf(-a.x)) * b.x, a.y / (1.f + __expf(-a.y)) * b.y);
  }
  ((uint4*)y)[r * n + i] = make_uint4(out[0], out[1], out[2], out[3]);
}
