// rope_append: the fused query, key and value product becomes queries for the attention
// and entries of KV pages. A warp takes one head of one row: queries, then keys, then
// values; or several heads, in the form that most models have (ropeHalves).
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

// Where a head of a row goes: to the row `token` of a tile, or to a row of its own.
struct Destination {
  char* out;
  bool tiled;
};
__device__ __forceinline__ Destination queryDestination(const RopeArgs& a, const Seq& s, const Row& m, int h, int stored) {
  if (s.tile < 0) return {(char*)(a.q + ((int64_t)m.seq * a.queryHeads + h) * stored), false};
  return {a.qTiles + ((int64_t)(s.tile + m.pos / BLOCK - s.start / BLOCK) * a.queryHeads + h) * (BLOCK * stored * 2), true};
}
// The page of a key or a value; h counts from the first key.
__device__ __forceinline__ int64_t pageOf(const RopeArgs& a, const Seq& s, const Row& m, int h) {
  return a.table[((int64_t)s.slot * a.heads + a.layer * a.kvHeads + h % a.kvHeads) * a.maxBlocks + m.pos / BLOCK];
}
// Values follow keys in a page.
__device__ __forceinline__ Destination pageDestination(const RopeArgs& a, const Seq& s, const Row& m, int h, int stored) {
  return {a.pool + pageOf(a, s, m, h) * (BLOCK * stored * 4) + (h < a.kvHeads ? 0 : BLOCK * stored * 2), true};
}

// Whether a row is the last of a page that this step entered and does not fill: what the
// page's last owner left in the rest of it must become finite.
__device__ __forceinline__ bool endsPage(const Seq& s, const Row& m) {
  return m.pos == s.start + s.len - 1 && m.pos / BLOCK * BLOCK >= s.start;
}
// Sets the rows behind `token` of half a page to zero.
__device__ __forceinline__ void clearRest(char* out, int token, int stored, int lane) {
  const int shift = 31 - __clz(stored / 8);  // a power of two
#pragma unroll 4
  for (int i = lane; i < (BLOCK - 1 - token) << shift; i += 32)
    *(uint4*)(out + tileOffset(token + 1 + (i >> shift), 8 * (i & ((1 << shift) - 1)))) = make_uint4(0, 0, 0, 0);
}

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

  Destination to;
  const int token = m.pos % BLOCK;
  float scale = 1;
  if (isQuery) {
    to = queryDestination(a, s, m, h, stored);
  } else if constexpr (FP8) {
    char* at = a.pool + pageOf(a, s, m, h - a.queryHeads) * pageBytesE4M3(stored);
    scale = pageScale(a, s, m.pos, r, (float*)(at + 2 * tileBytesE4M3(stored)) + !isKey, v, lane, load);
    to = {at + (isKey ? 0 : tileBytesE4M3(stored)), true};
  } else {
    to = pageDestination(a, s, m, h - a.queryHeads, stored);
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
  char* const out = to.out;
  const bool clear = !isQuery && endsPage(s, m);
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
    *(uint4*)(out + (to.tiled ? tileOffset(token, 8 * c) : 16 * c)) = make_uint4(u[0], u[1], u[2], u[3]);
  }
  if (clear) clearRest(out, token, stored, lane);
}

// Whether ropeHalves takes the heads: all dimensions are rotated, those of the first half
// with those of the second, and a page holds nothing else. args.go knows it, too.
__device__ __forceinline__ bool inHalves(const RopeArgs& a) {
  return !a.interleaved && 2 * a.pairs == a.headDim && a.headDim == storedHeadDim(a.headDim);
}

// bfloat16 pages of heads in halves. headDim/16 lanes take a head: each 8 dimensions of
// the first half and those of the second that they are rotated with, so that nothing
// goes through shared memory.
__device__ __forceinline__ void ropeHalves(const RopeArgs& a) {
  const int hd = a.headDim, lanes = hd / 16, lane = threadIdx.x & 31, part = lane & (lanes - 1), all = a.queryHeads + 2 * a.kvHeads;
  const int64_t r = blockIdx.x;
  const int h = (blockIdx.y * ROPE_WARPS + (threadIdx.x >> 5)) * (32 / lanes) + lane / lanes;
  launchDependents();
  waitForPrevious();
  if (r >= a.rows) return;
  const Row m = a.meta[r];
  if (m.seq < 0) return;
  const Seq s = a.seqs[m.seq];
  const bool isQuery = h < a.queryHeads, isKey = !isQuery && h < a.queryHeads + a.kvHeads;
  float x[2][8] = {};  // of both halves
  if (h < all) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int d = h * hd + half * hd / 2 + 8 * part;
      const uint4 u = *(const uint4*)(a.qkv + r * all * hd + d);
      const uint32_t words[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 two = unpack(words[k]);
        x[half][2 * k] = two.x;
        x[half][2 * k + 1] = two.y;
      }
      if (a.bias)
#pragma unroll
        for (int k = 0; k < 8; ++k) x[half][k] += a.bias[d + k];
    }
  }
  const float* norm = isQuery ? a.qNorm : isKey ? a.kNorm : nullptr;
  if (a.qNorm || a.kNorm) {  // all lanes of a warp, though not all heads
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) sum += x[0][k] * x[0][k] + x[1][k] * x[1][k];
    for (int n = 1; n < lanes; n *= 2) sum += __shfl_xor_sync(~0u, sum, n);
    const float f = rsqrtf(sum / (float)hd + a.eps);
    if (norm)
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        x[0][k] *= f * norm[8 * part + k];
        x[1][k] *= f * norm[hd / 2 + 8 * part + k];
      }
  }
  if (h < all && (isQuery || isKey)) {
    const float4* angle = (const float4*)(a.angles + ((int64_t)m.pos * a.pairs + 8 * part) * 2);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float4 cs = __ldg(angle + k);  // cosine and sine of two pairs
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float c = i ? cs.z : cs.x, n = i ? cs.w : cs.y, low = x[0][2 * k + i], high = x[1][2 * k + i];
        x[0][2 * k + i] = low * c - high * n;
        x[1][2 * k + i] = high * c + low * n;
      }
    }
  }
  const int token = m.pos % BLOCK;
  char* page = nullptr;  // half of one, of a key or a value
  if (h < all) {
    const Destination to = isQuery ? queryDestination(a, s, m, h, hd) : pageDestination(a, s, m, h - a.queryHeads, hd);
    if (!isQuery) page = to.out;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int d = half * hd / 2 + 8 * part;
      *(uint4*)(to.out + (to.tiled ? tileOffset(token, d) : 2 * d)) =
          make_uint4(pack(x[half][0], x[half][1]), pack(x[half][2], x[half][3]), pack(x[half][4], x[half][5]), pack(x[half][6], x[half][7]));
    }
  }
  if (endsPage(s, m))  // seldom, and many bytes: all lanes, one head after the other
    for (int i = 0; i < 32; i += lanes) {
      char* const rest = (char*)__shfl_sync(~0u, (unsigned long long)page, i);
      if (rest) clearRest(rest, token, hd, lane);
    }
}

#define ROPE_APPEND(NAME, FP8)                                                                                                   \
  extern "C" __global__ void __launch_bounds__(32 * ROPE_WARPS) NAME(                                                            \
      const bf16* qkv, const float* bias, const float* qNorm, const float* kNorm, const float* angles, const Row* meta,          \
      const Seq* seqs, const int* table, char* pool, bf16* q, char* qTiles, int64_t rows, int64_t queryHeads, int64_t kvHeads,   \
      int64_t headDim, int64_t pairs, int64_t interleaved, int64_t layer, int64_t heads, int64_t maxBlocks, double eps) {        \
    const RopeArgs a{qkv, bias, qNorm, kNorm, angles, meta, seqs, table, pool, q, qTiles, rows, maxBlocks, (int)queryHeads,      \
                     (int)kvHeads, (int)headDim, (int)pairs, (int)layer, (int)heads, interleaved != 0, (float)eps};              \
    if (!FP8 && inHalves(a))                                                                                                     \
      ropeHalves(a);                                                                                                             \
    else                                                                                                                         \
      ropeAppend<FP8>(a);                                                                                                        \
  }
ROPE_APPEND(rope_append, false)
ROPE_APPEND(rope_append_fp8, true)
