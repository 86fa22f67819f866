// A row of logits before a token is chosen, by all of a block of 1024 threads: the
// likeliest token, log-probabilities, and what biases, penalties and masks change.
#pragma once
#include "common.cuh"

constexpr float LARGEST = 3.402823466e38f;  // +Inf counts as this

struct Best {
  float value;
  int id;
};
__device__ __forceinline__ Best better(Best a, Best b) { return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a; }

// The tokens that may be chosen: all of them without words.
struct Mask {
  const uint32_t* words;
  int count;
  // Bit 0 is that of a token, the next ones those of the tokens behind it.
  __device__ __forceinline__ uint32_t bits(int id) const { return !words ? ~0u : (id >> 5) < count ? words[id >> 5] >> (id & 31) : 0; }
  __device__ __forceinline__ bool allows(int id) const { return bits(id) & 1; }
};

// Calls f(id, logit) for every token of a row, and for some past its end with -Inf; with
// -Inf, too, for what the mask excludes. Which thread gets a token depends on n alone; it
// gets its tokens in order. All threads of a warp call together.
template <class F>
__device__ __forceinline__ void eachLogit(const float* line, int n, Mask mask, F f) {
  constexpr int AHEAD = 4;  // loads in flight
  if (n % 4) {  // rows are not aligned
    for (int from = threadIdx.x; from - (int)threadIdx.x < n; from += 1024) f(from, from < n && mask.allows(from) ? line[from] : -INFINITY);
    return;
  }
  for (int from = 4 * threadIdx.x; from - 4 * (int)threadIdx.x < n; from += 4096 * AHEAD) {
    float4 xs[AHEAD];
    uint32_t allowed[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      const int i = from + 4096 * u;
      xs[u] = i < n ? *(const float4*)(line + i) : float4{-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    }
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) allowed[u] = mask.bits(from + 4096 * u);
#pragma unroll
    for (int u = 0; u < AHEAD; ++u) {
      const float x[4] = {xs[u].x, xs[u].y, xs[u].z, xs[u].w};
#pragma unroll
      for (int c = 0; c < 4; ++c) f(from + 4096 * u + c, allowed[u] >> c & 1 ? x[c] : -INFINITY);
    }
  }
}

// The likeliest token of a row, with -Inf when none has a logit above that; mine gets the
// likeliest of those that this thread saw.
__device__ __forceinline__ Best likeliest(const float* line, int n, Mask mask, Best* bests, Best& mine) {
  Best best{-INFINITY, n};
  eachLogit(line, n, mask, [&](int id, float x) {
    if (x > best.value) best = {x, id};  // a thread's ids ascend
  });
  mine = best;
#pragma unroll
  for (int d = 16; d; d >>= 1) best = better(best, Best{__shfl_xor_sync(~0u, best.value, d), __shfl_xor_sync(~0u, best.id, d)});
  if ((threadIdx.x & 31) == 0) bests[threadIdx.x >> 5] = best;
  __syncthreads();
  best = bests[threadIdx.x & 31];
#pragma unroll
  for (int d = 16; d; d >>= 1) best = better(best, Best{__shfl_xor_sync(~0u, best.value, d), __shfl_xor_sync(~0u, best.id, d)});
  return best;
}

// The logarithm of the sum of e^(x - hi).
__device__ __forceinline__ float logSum(const float* line, int n, float hi, float* sums) {
  float sum = 0;
  eachLogit(line, n, Mask{}, [&](int, float x) { sum += x == x ? __expf(fminf(x - hi, 0.f)) : 0.f; });
  sum = warpSum(sum);
  if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
  __syncthreads();
  return logf(warpSum(sums[threadIdx.x & 31]));
}

// The log-probability of a logit, for hi the largest one: not below -9999, which also
// stands for what is not a number, as in runtime/sample.
__device__ __forceinline__ float logProbability(float x, float hi, float sum) {
  const float p = (x > LARGEST ? LARGEST : x) - hi - sum;
  return p > -9999.f ? fminf(p, 0.f) : -9999.f;
}

// The bits of a number as an integer in the same order; both zeros are equal.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t b = __float_as_uint(x + 0.f);
  return b >> 31 ? ~b : b | 0x80000000u;
}

// Tokens in order of rank: by logit, then the lower id. 0 is none.
__device__ __forceinline__ uint64_t rankOf(float x, int id) { return x > -INFINITY ? (uint64_t)ordered(x) << 32 | (uint32_t)~id : 0; }

// The k-th largest of the threads' ranks, or a number between it and the next; 0 when
// fewer than k are not 0.
__device__ __forceinline__ uint64_t rankLimit(uint64_t rank, int k) {
  uint64_t limit = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t next = limit | 1ull << bit;
    const int n = __syncthreads_count(rank >= next);
    if (n >= k) limit = next;
    if (n == k) break;
  }
  return limit;
}

// The k likeliest tokens of a row, likeliest first, by the whole block; mine is the
// likeliest of this thread's. Places that are left over get id -1. list and count are
// shared.
constexpr int LISTED = 1024;
__device__ static void rankTokens(const float* line, int n, int k, Best mine, float hi, float sum, uint64_t* list, int* count, TopLogprob* out) {
  const uint64_t own = rankOf(mine.value, mine.id);
  uint64_t limit = rankLimit(own, k), rank;
  int found;
  // The k likeliest reach the limit, and all that do are with the few threads whose own
  // likeliest token does. If the list cannot hold them, the k-th of those that it holds
  // is a higher limit: every round leaves out all but k of a list.
  do {
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
    if (__any_sync(~0u, own && own >= limit))
      eachLogit(line, n, Mask{}, [&](int id, float x) {
        if ((rank = rankOf(x, id)) && rank >= limit) {
          const int at = atomicAdd(count, 1);
          if (at < LISTED) list[at] = rank;
        }
      });
    __syncthreads();
    found = *count;
    rank = (int)threadIdx.x < min(found, LISTED) ? list[threadIdx.x] : 0;
    limit = rankLimit(rank, k);
  } while (found > LISTED);
  const bool chosen = rank && rank >= limit;
  if (threadIdx.x == 0) *count = 0;
  __syncthreads();
  if (chosen) list[atomicAdd(count, 1)] = rank;
  __syncthreads();
  const int total = *count;
  if (chosen) {
    int place = 0;
    for (int i = 0; i < total; ++i) place += list[i] > rank;
    const int id = (int)~(uint32_t)rank;
    out[place] = {id, logProbability(line[id], hi, sum)};
  }
  if ((int)threadIdx.x >= total && threadIdx.x < TOP_LOGPROBS) out[threadIdx.x] = {-1, 0.f};
  __syncthreads();
}

// What a token that min_tokens holds back has for a logit: not a number, and unlike any
// that arithmetic gives.
constexpr uint32_t HELD_LOGIT = 0x7fe1d000;

// An adjusted logit: runtime/sample's, operation by operation, so that it is the same
// number.
__device__ __forceinline__ float adjustedLogit(float x, int count, float bias, const SampleRow& p) {
  if (count == HELD) return __uint_as_float(HELD_LOGIT);
  x = __fadd_rn(x, bias);
  if (count < 0) return x;
  x = x > 0 ? __fdiv_rn(x, p.repetition) : __fmul_rn(x, p.repetition);
  return count > 0 ? __fsub_rn(x, __fadd_rn(__fmul_rn(p.frequency, (float)count), p.presence)) : x;
}

// Adjusts the logits of a row in place. Adjustments keep the logits as they came in
// place of the biases, for restore. The pending token counts once more than its
// adjustment says; if it has none, thread 0 gets it with its logit, else id -1.
__device__ static Best adjust(float* line, int n, const SampleRow& p) {
  int pending = p.pending ? *p.pending : -1;
  if (pending >= n) pending = -1;
  bool known = false;
  for (int i = threadIdx.x; i < p.adjusted; i += 1024) {
    Adjustment& a = p.adjustments[i];
    const int id = a.id;
    int count = a.count;
    if (id < 0 || id >= n) continue;
    if (id == pending) {
      known = true;
      if (count != HELD) count = max(count, 0) + 1;
    }
    const float x = line[id];
    line[id] = adjustedLogit(x, count, a.bias, p);
    a.bias = x;
  }
  Best fresh{0.f, -1};
  if (!__syncthreads_or(known) && threadIdx.x == 0 && pending >= 0) {
    fresh = {line[pending], pending};
    line[pending] = adjustedLogit(fresh.value, 1, 0.f, p);
  }
  __syncthreads();
  return fresh;
}

// Gives a row back the logits that adjust has changed.
__device__ static void restore(float* line, int n, const SampleRow& p, Best fresh) {
  __syncthreads();
  for (int i = threadIdx.x; i < p.adjusted; i += 1024) {
    const Adjustment a = p.adjustments[i];
    if (a.id >= 0 && a.id < n) line[a.id] = a.bias;
  }
  if (threadIdx.x == 0 && fresh.id >= 0) line[fresh.id] = fresh.value;
  __syncthreads();
}

// The token of an adjusted row without any number above -Inf: the lowest that the mask
// allows, preferably one that is not held back; 0 when it allows none. lowest is shared
// memory for two numbers.
__device__ static int anyToken(const float* line, int n, Mask mask, int* lowest) {
  if (threadIdx.x < 2) lowest[threadIdx.x] = n;
  __syncthreads();
  int allowed = n, free = n;
  for (int i = threadIdx.x; i < n; i += 1024)
    if (mask.allows(i)) {
      allowed = min(allowed, i);
      if (__float_as_uint(line[i]) != HELD_LOGIT) free = min(free, i);
    }
  atomicMin(&lowest[0], free);
  atomicMin(&lowest[1], allowed);
  __syncthreads();
  return lowest[0] < n ? lowest[0] : lowest[1] < n ? lowest[1] : 0;
}
