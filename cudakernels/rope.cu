// rope_append: the fused query, key and value product becomes queries for the attention
// and entries of KV pages. A warp takes one head of one row: queries, then keys, then
// values.
//
// For e4m3 pages, queries and keys are multiplied by a Hadamard matrix on top of the
// rotation by position. It is orthonormal, so scores stay what they are. But rounding to
// e4m3 leaves each of a score's products with a relative error, and in many models a few
// dimensions of queries and keys are large and make up most of it; spread over all
// dimensions, the errors cancel.
#include "e4m3.cuh"

constexpr int ROPE_WARPS = 4;

struct RopeArgs {
  const bf16* qkv;
  const float *bias, *qNorm, *kNorm, *angles;
  const Row* meta;
  const Seq* seqs;
  const int* table;
  char* pool;
  bf16* q;
  char* qTiles;
  int64_t rows, maxBlocks;
  int queryHeads, kvHeads, headDim, pairs, layer, heads;
  bool interleaved;
  float eps;
};

// Puts into v the product of 32*EACH elements and the Hadamard matrix of that order,
// orthonormal: its element (i, j) is positive where i and j have an even number of bits in
// common. element computes them, from v too.
template <int EACH, class Element>
__device__ __forceinline__ void hadamard(float* v, int lane, Element element) {
  float x[EACH];  // of lane i: elements i, 32 + i, ...
#pragma unroll
  for (int k = 0; k < EACH; ++k) x[k] = element(32 * k + lane);
#pragma unroll
  for (int n = 1; n < EACH; n *= 2)
#pragma unroll
    for (int k = 0; k < EACH; ++k)
      if (!(k & n)) {
        const float low = x[k], high = x[k + n];
        x[k] = low + high;
        x[k + n] = low - high;
      }
#pragma unroll
  for (int n = 1; n < 32; n *= 2)
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
      const float other = __shfl_xor_sync(~0u, x[k], n);
      x[k] = lane & n ? other - x[k] : x[k] + other;
    }
  // 1/sqrt(32*EACH)
  constexpr float UNIT = EACH == 2 ? 0.125f : EACH == 4 ? 0.08838834764831845f : 0.0625f;
  __syncwarp();  // v has been read
#pragma unroll
  for (int k = 0; k < EACH; ++k) v[32 * k + lane] = x[k] * UNIT;
  __syncwarp();
}

// The scale of the page that a row's key or value goes to: of the block's first token,
// which this launch appends too (then every row computes it anew), or which left it in
// the page. load puts a row's head into v. It is taken before any rotation: to rotate the
// first token anew for every row would cost each as much as its own rotation.
template <class Load>
__device__ __forceinline__ float pageScale(const RopeArgs& a, const Seq& s, int pos, int64_t r, float* stored, const float* v, int lane, Load load) {
  const int token = pos % BLOCK;
  if (pos - token < s.start) return *stored;
  load(r - token);
  float largest = 0;
  for (int d = lane; d < a.headDim; d += 32) largest = fmaxf(largest, fabsf(v[d]));
  __syncwarp();  // v is about to be overwritten
  const float scale = scaleE4M3(__uint_as_float(__reduce_max_sync(~0u, __float_as_uint(largest))));
  if (token == 0 && lane == 0) *stored = scale;
  return scale;
}

template <bool FP8>
__device__ __forceinline__ void ropeAppend(const RopeArgs& a) {
  __shared__ float shared[ROPE_WARPS][256];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int hd = a.headDim, stored = storedHeadDim(hd), all = a.queryHeads + 2 * a.kvHeads;
  const int64_t r = blockIdx.x;
  const int h = blockIdx.y * ROPE_WARPS + warp;
  float* v = shared[warp];
  launchDependents();
  waitForPrevious();
  if (r >= a.rows || h >= all) return;
  const Row m = a.meta[r];
  if (m.seq < 0) return;
  const Seq s = a.seqs[m.seq];
  const bool isQuery = h < a.queryHeads, isKey = !isQuery && h < a.queryHeads + a.kvHeads;

  // Biased, normalised, padded with zeros.
  auto load = [&](int64_t row) {
    float sum = 0;
    for (int d = 2 * lane; d < stored; d += 64) {
      float2 x = make_float2(0, 0);
      if (d < hd) {
        x = unpack(*(const uint32_t*)(a.qkv + (row * all + h) * hd + d));
        if (a.bias) {
          x.x += a.bias[h * hd + d];
          x.y += a.bias[h * hd + d + 1];
        }
      }
      v[d] = x.x;
      v[d + 1] = x.y;
      sum += x.x * x.x + x.y * x.y;
    }
    const float* norm = isQuery ? a.qNorm : isKey ? a.kNorm : nullptr;
    if (norm) {
      const float f = rsqrtf(warpSum(sum) / (float)hd + a.eps);
      for (int d = 2 * lane; d < hd; d += 64) {
        v[d] *= f * norm[d];
        v[d + 1] *= f * norm[d + 1];
      }
    }
    __syncwarp();
  };

  // Where the head goes, and the row of it there; values follow keys in a page.
  char* out;
  int token = m.pos % BLOCK;
  bool tiled = true;
  float scale = 1;
  const int block = m.pos / BLOCK;
  if (isQuery) {
    tiled = s.tile >= 0;
    if (tiled)
      out = a.qTiles + ((int64_t)(s.tile + block - s.start / BLOCK) * a.queryHeads + h) * (BLOCK * stored * 2);
    else
      out = (char*)(a.q + ((int64_t)m.seq * a.queryHeads + h) * stored);
  } else {
    const int kv = (h - a.queryHeads) % a.kvHeads;
    const int page = a.table[((int64_t)s.slot * a.heads + a.layer * a.kvHeads + kv) * a.maxBlocks + block];
    if constexpr (FP8) {
      char* at = a.pool + (int64_t)page * pageBytesE4M3(stored);
      scale = pageScale(a, s, m.pos, r, (float*)(at + 2 * tileBytesE4M3(stored)) + !isKey, v, lane, load);
      out = at + (isKey ? 0 : tileBytesE4M3(stored));
    } else {
      out = a.pool + (int64_t)page * (BLOCK * stored * 4) + (isKey ? 0 : BLOCK * stored * 2);
    }
  }
  load(r);

  const float2* angle = (const float2*)a.angles + (int64_t)m.pos * a.pairs;
  const int rotated = 2 * a.pairs;
  auto rotate = [&](int d) {
    if (!(isQuery || isKey) || d >= rotated) return v[d];
    const bool second = a.interleaved ? d & 1 : d >= a.pairs;
    const int pair = a.interleaved ? d >> 1 : second ? d - a.pairs : d;
    const float2 cs = __ldg(angle + pair);
    const float other = v[a.interleaved ? d ^ 1 : second ? d - a.pairs : d + a.pairs];
    return v[d] * cs.x + (second ? other : -other) * cs.y;
  };
  if (FP8 && (isQuery || isKey)) {
    if (stored == 64)
      hadamard<2>(v, lane, rotate);
    else if (stored == 128)
      hadamard<4>(v, lane, rotate);
    else
      hadamard<8>(v, lane, rotate);
  }
  auto element = [&](int d) { return FP8 ? v[d] : rotate(d); };
  // A page that this step entered and does not fill: what its last owner left in the
  // rest of it must be finite.
  const bool clear = !isQuery && m.pos == s.start + s.len - 1 && block * BLOCK >= s.start;
  if (FP8 && !isQuery) {
    const float f = inverse(scale);
    for (int w = lane; w < stored / 4; w += 32) {  // a word of four codes at a time
      const int d = (w >> 2) * 16 + (w & 3) * 2;
      const uint32_t lo = packE4M3(element(d) * f, element(d + 8) * f), hi = packE4M3(element(d + 1) * f, element(d + 9) * f);
      *(uint32_t*)(out + offsetE4M3(token, d, stored)) = lo | hi << 16;
    }
    if (clear)
      for (int i = lane; i < (BLOCK - 1 - token) * (stored / 16); i += 32) ((uint4*)(out + (token + 1) * stored))[i] = make_uint4(0, 0, 0, 0);
    return;
  }
  for (int c = lane; c < stored / 8; c += 32) {  // 8 dimensions at a time
    uint32_t u[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) u[k] = pack(element(8 * c + 2 * k), element(8 * c + 2 * k + 1));
    *(uint4*)(out + (tiled ? tileOffset(token, 8 * c) : 16 * c)) = make_uint4(u[0], u[1], u[2], u[3]);
  }
  if (clear)
    for (int i = lane; i < (BLOCK - 1 - token) * (stored / 8); i += 32) {
      const int t = token + 1 + i / (stored / 8), c = i % (stored / 8);
      *(uint4*)(out + tileOffset(t, 8 * c)) = make_uint4(0, 0, 0, 0);
    }
}

#define ROPE_APPEND(NAME, FP8)                                                                                                   \
  extern "C" __global__ void __launch_bounds__(32 * ROPE_WARPS) NAME(                                                            \
      const bf16* qkv, const float* bias, const float* qNorm, const float* kNorm, const float* angles, const Row* meta,          \
      const Seq* seqs, const int* table, char* pool, bf16* q, char* qTiles, int64_t rows, int64_t queryHeads, int64_t kvHeads,   \
      int64_t headDim, int64_t pairs, int64_t interleaved, int64_t layer, int64_t heads, int64_t maxBlocks, double eps) {        \
    ropeAppend<FP8>({qkv, bias, qNorm, kNorm, angles, meta, seqs, table, pool, q, qTiles, rows, maxBlocks, (int)queryHeads,      \
                     (int)kvHeads, (int)headDim, (int)pairs, (int)layer, (int)heads, interleaved != 0, (float)eps});             \
  }
ROPE_APPEND(rope_append, false)
ROPE_APPEND(rope_append_fp8, true)
