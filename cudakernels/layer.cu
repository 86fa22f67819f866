// The element-wise kernels of a layer. The residual stream is float32.
#include "plan.cuh"

extern "C" __global__ void embed(const int* tokens, const int* choices, const bf16* table, float* x, int64_t rows, int64_t hidden, int64_t vocab) {
  launchDependents();
  waitForPrevious();
  const int64_t r = blockIdx.x;
  if (r >= rows) return;
  int token = tokens[r];
  if (token < 0) token = choices[-1 - token];
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

// A warp takes one head of one row: queries, then keys, then values.
constexpr int ROPE_WARPS = 4;

extern "C" __global__ void __launch_bounds__(32 * ROPE_WARPS) rope_append(
    const bf16* qkv, const float* bias, const float* qNorm, const float* kNorm, const float* angles, const Row* meta, const Seq* seqs,
    const int* table, char* pool, bf16* q, char* qTiles, int64_t rows, int64_t queryHeads, int64_t kvHeads, int64_t headDim, int64_t pairs,
    int64_t interleaved, int64_t layer, int64_t heads, int64_t maxBlocks, double eps) {
  __shared__ float shared[ROPE_WARPS][256];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int hd = (int)headDim, stored = storedHeadDim(hd), all = (int)(queryHeads + 2 * kvHeads);
  const int64_t r = blockIdx.x;
  const int h = blockIdx.y * ROPE_WARPS + warp;
  float* v = shared[warp];
  launchDependents();
  waitForPrevious();
  if (r >= rows || h >= all) return;
  const Row m = meta[r];
  if (m.seq < 0) return;
  const Seq s = seqs[m.seq];
  const bool isQuery = h < queryHeads, isKey = !isQuery && h < queryHeads + kvHeads;

  float sum = 0;
  for (int d = 2 * lane; d < stored; d += 64) {
    float2 x = make_float2(0, 0);
    if (d < hd) {
      x = unpack(*(const uint32_t*)(qkv + (r * all + h) * hd + d));
      if (bias) {
        x.x += bias[h * hd + d];
        x.y += bias[h * hd + d + 1];
      }
    }
    v[d] = x.x;
    v[d + 1] = x.y;
    sum += x.x * x.x + x.y * x.y;
  }
  const float* norm = isQuery ? qNorm : isKey ? kNorm : nullptr;
  if (norm) {
    const float f = rsqrtf(warpSum(sum) / (float)hd + (float)eps);
    for (int d = 2 * lane; d < hd; d += 64) {
      v[d] *= f * norm[d];
      v[d + 1] *= f * norm[d + 1];
    }
  }
  __syncwarp();

  // Where the head goes, and the row of it there; values follow keys in a page.
  char* out;
  int token = m.pos % BLOCK;
  bool tiled = true;
  const int block = m.pos / BLOCK;
  if (isQuery) {
    tiled = s.tile >= 0;
    if (tiled)
      out = qTiles + ((int64_t)(s.tile + block - s.start / BLOCK) * queryHeads + h) * (BLOCK * stored * 2);
    else
      out = (char*)(q + ((int64_t)m.seq * queryHeads + h) * stored);
  } else {
    const int kv = (h - (int)queryHeads) % (int)kvHeads;
    const int page = table[((int64_t)s.slot * heads + layer * kvHeads + kv) * maxBlocks + block];
    out = pool + (int64_t)page * (BLOCK * stored * 4) + (isKey ? 0 : BLOCK * stored * 2);
  }
  const float2* angle = (const float2*)angles + (int64_t)m.pos * pairs;
  const int rotated = 2 * (int)pairs;
  for (int c = lane; c < stored / 8; c += 32) {  // 8 dimensions at a time
    float x[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int d = 8 * c + k;
      if ((isQuery || isKey) && d < rotated) {
        const bool second = interleaved ? d & 1 : d >= pairs;
        const int pair = interleaved ? d >> 1 : second ? d - (int)pairs : d;
        const float2 a = __ldg(angle + pair);
        const float other = v[interleaved ? d ^ 1 : second ? d - (int)pairs : d + (int)pairs];
        x[k] = v[d] * a.x + (second ? other : -other) * a.y;
      } else {
        x[k] = v[d];
      }
    }
    const uint4 u = make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
    *(uint4*)(out + (tiled ? tileOffset(token, 8 * c) : 16 * c)) = u;
  }
  // A page that this step entered and does not fill: what its last owner left in the
  // rest of it must be finite.
  if (!isQuery && m.pos == s.start + s.len - 1 && block * BLOCK >= s.start)
    for (int i = lane; i < (BLOCK - 1 - token) * (stored / 8); i += 32) {
      const int t = token + 1 + i / (stored / 8), c = i % (stored / 8);
      *(uint4*)(out + tileOffset(t, 8 * c)) = make_uint4(0, 0, 0, 0);
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
