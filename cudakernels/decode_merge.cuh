// The merge of (sequence, KV head) pairs that are cut between thread blocks of the
// decode attention.
#pragma once
#include "plan.cuh"

constexpr uint32_t NOT_READY = 0xffffffffu;
constexpr int CONSUMERS = DECODE_CONSUMERS;

struct DecodeArgs {
  const char* pool;
  const char* plan;
  const int* table;
  const bf16* q;
  bf16* out;
  float* workspace;
  float* clear;
  int layer, kvHeads, heads, group, headDim, stages;
  int64_t maxBlocks;
  float scale;  // times log2(e)
};

// The elements of 4 floats that this thread block merges: first, end. None unless it is
// one of those that merge.
__device__ __forceinline__ int2 mergeShare(int4 head) {
  if (blockIdx.x % head.w) return make_int2(0, 0);
  const int first = (int)blockIdx.x / head.w * head.y;
  return make_int2(first, min(first + head.y, head.x));
}

// Merges a share of the cut pairs, each element by 2^lanes threads. e is this thread's
// first element, item its pair.
template <int HD>
__device__ __forceinline__ void mergeParts(const DecodeArgs& a, const DecodePlan& plan, int4 head, int2 share, int4 item, int e) {
  const int G = a.group, quads = G * (HD / 4), log = head.z, width = 1 << log, sub = threadIdx.x & (width - 1), end = share.y;
  const float* ml = a.workspace + (int64_t)2 * gridDim.x * G * HD;
  for (int e0 = share.x; e0 < end; e0 += CONSUMERS >> log) {
    const bool active = e < end;
    const int x = active ? e % quads : 0, g = x / (HD / 4), d = x % (HD / 4) * 4, parts = active ? item.z : 0;
    constexpr int U = 4;
    float4 acc = make_float4(0, 0, 0, 0);
    float M = -INFINITY, L = 0;
    for (int j = sub; j < parts; j += width * U) {
      uint4 ov[U];
      uint2 mv[U];
      bool ok;
      do {
        ok = true;
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const int k = j + u * width;
          if (k < parts) {
            const int slot = 2 * (item.y + k) + (k == 0);  // a pair's first part begins in its run
            ov[u] = loadRelaxed4(a.workspace + ((int64_t)slot * G + g) * HD + d);
            mv[u] = loadRelaxed2(ml + (slot * G + g) * 2);
          } else {
            ov[u] = make_uint4(0, 0, 0, 0);
            mv[u] = make_uint2(0xff800000u, 0);
          }
        }
#pragma unroll
        for (int u = 0; u < U; ++u)
          ok = ok && ov[u].x != NOT_READY && ov[u].y != NOT_READY && ov[u].z != NOT_READY && ov[u].w != NOT_READY && mv[u].x != NOT_READY && mv[u].y != NOT_READY;
      } while (!ok);
      float Mn = M;
#pragma unroll
      for (int u = 0; u < U; ++u) Mn = fmaxf(Mn, __uint_as_float(mv[u].x));
      const float old = ex2(M - Mn);
      L *= old; acc.x *= old; acc.y *= old; acc.z *= old; acc.w *= old;
      M = Mn;
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const float f = ex2(__uint_as_float(mv[u].x) - Mn);
        L += __uint_as_float(mv[u].y) * f;
        acc.x += __uint_as_float(ov[u].x) * f; acc.y += __uint_as_float(ov[u].y) * f;
        acc.z += __uint_as_float(ov[u].z) * f; acc.w += __uint_as_float(ov[u].w) * f;
      }
    }
    __syncwarp();
    float Mx = M;
#pragma unroll
    for (int s = 1; s < 32; s <<= 1)
      if (s < width) Mx = fmaxf(Mx, __shfl_xor_sync(~0u, Mx, s));
    const float f = M == -INFINITY ? 0.f : ex2(M - Mx);
    L *= f; acc.x *= f; acc.y *= f; acc.z *= f; acc.w *= f;
#pragma unroll
    for (int s = 1; s < 32; s <<= 1)
      if (s < width) {
        L += __shfl_xor_sync(~0u, L, s);
        acc.x += __shfl_xor_sync(~0u, acc.x, s); acc.y += __shfl_xor_sync(~0u, acc.y, s);
        acc.z += __shfl_xor_sync(~0u, acc.z, s); acc.w += __shfl_xor_sync(~0u, acc.w, s);
      }
    if (active && sub == 0 && d < a.headDim) {
      const float inv = __fdividef(1.f, L);
      bf16* out = a.out + ((int64_t)item.x * G + g) * a.headDim + d;
      *(uint2*)out = make_uint2(pack(acc.x * inv, acc.y * inv), pack(acc.z * inv, acc.w * inv));
    }
    e += CONSUMERS >> log;
    if (e < end) item = __ldg(plan.items + e / quads);
  }
}
