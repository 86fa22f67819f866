// The merge of the parts of an item of the prefill attention. A warp hands on what it has
// of its 16 rows of a member, and the last warp to do so merges: always in the order of
// the parts, so that the result does not depend on which one is last.
#pragma once
#include "prefill_items.cuh"

// The workspace of a part: for each of four warps of three members a counter; a reference
// maximum (scaled) and a sum of both rows of every lane; accumulators as the lanes hold
// them. Counters count on the item's first workspace, from zero and back to it.
constexpr int PART_WARPS = 12, PART_COUNTERS = 64;
template <int HD>
constexpr int PART_BYTES = PART_COUNTERS + PART_WARPS * 32 * 16 * (1 + HD / 8);

// Hands on the accumulators o (HD/2 a lane: columns 8j+2*quad of rows row, row and row+8,
// row+8), the maxima and the sums of a part. Returns true, uniformly in a warp, when all
// parts have arrived: then o and l0, l1 are those of the whole item.
//
// cut: the part, how many there are, the workspace of the first; warp: of those of an
// item's three members.
template <int HD>
__device__ __forceinline__ bool joinParts(char* parts, int4 cut, int warp, int lane, float* o, float m0, float m1, float& l0, float& l1) {
  const int part = cut.x, count = cut.y;
  char* const first = parts + (int64_t)cut.z * PART_BYTES<HD>;
  auto sums = [&](int i) { return (float4*)(first + (int64_t)i * PART_BYTES<HD> + PART_COUNTERS) + warp * 32 + lane; };
  // Behind the sums of all warps; accumulators take HD/8 times the room of sums.
  auto output = [&](int i) { return sums(0) + (int64_t)i * (PART_BYTES<HD> / 16) + PART_WARPS * 32 + warp * (HD / 8 - 1) * 32; };
  float4* to = output(part);
#pragma unroll
  for (int j = 0; j < HD / 8; ++j) to[32 * j] = make_float4(o[4 * j], o[4 * j + 1], o[4 * j + 2], o[4 * j + 3]);
  *sums(part) = make_float4(m0, m1, l0, l1);
  __syncwarp();
  int arrived = 0;
  if (lane == 0) {
    int* counter = (int*)first + warp;
    __threadfence();
    arrived = atomicAdd(counter, 1);
    __threadfence();
    if (arrived == count - 1) *counter = 0;
  }
  if (__shfl_sync(~0u, arrived, 0) != count - 1) return false;
  __syncwarp();

  auto load = [](const float4* p) {
    const uint4 x = loadRelaxed4(p);
    return make_float4(__uint_as_float(x.x), __uint_as_float(x.y), __uint_as_float(x.z), __uint_as_float(x.w));
  };
  m0 = m1 = -INFINITY;
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    const float4 s = load(sums(i));
    m0 = fmaxf(m0, s.x);
    m1 = fmaxf(m1, s.y);
  }
  l0 = l1 = 0;
#pragma unroll
  for (int j = 0; j < HD / 2; ++j) o[j] = 0;
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const float4 s = load(sums(i));
    const float f0 = ex2(s.x - m0), f1 = ex2(s.y - m1);
    l0 = fmaf(s.z, f0, l0);
    l1 = fmaf(s.w, f1, l1);
    const float4* from = output(i);
#pragma unroll
    for (int j = 0; j < HD / 8; ++j) {
      const float4 x = load(from + 32 * j);
      o[4 * j] = fmaf(x.x, f0, o[4 * j]);
      o[4 * j + 1] = fmaf(x.y, f0, o[4 * j + 1]);
      o[4 * j + 2] = fmaf(x.z, f1, o[4 * j + 2]);
      o[4 * j + 3] = fmaf(x.w, f1, o[4 * j + 3]);
    }
  }
  return true;
}
