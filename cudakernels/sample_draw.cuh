// A draw from a row of adjusted logits: temperature, min_p, top_k, top_p, as
// runtime/sample does them. By all of a block of 1024 threads.
#pragma once
#include "sample_logits.cuh"

// e^x for -87 < x <= 0: runtime/sample's exp32, operation by operation, so that the
// weights are the same bits. Lane j of the warp brings 2^(j/32); all lanes call.
__device__ __forceinline__ float exp32(float x, float power) {
  constexpr float STEPS_PER_LN2 = 46.166241308446828384f, HI = 1419.f / 65536, LO = (float)(0.6931471805599453094 / 32 - 1419.0 / 65536);
  const float m = __fadd_rn(__fmul_rn(x, STEPS_PER_LN2), 12582912.f), n = __fadd_rn(m, -12582912.f);
  const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, HI)), __fmul_rn(n, LO));
  const uint32_t b = __float_as_uint(m);
  const float p = __fadd_rn(1.f, __fmul_rn(r, __fadd_rn(1.f, __fmul_rn(r, __fadd_rn(0.5f, __fmul_rn(r, 1.f / 6))))));
  return __uint_as_float(__float_as_uint(__fmul_rn(__shfl_sync(~0u, power, b), p)) + (b / 32 << 23));
}

// Digits of the radix selects.
constexpr int DIGIT = 10, BINS = 1 << DIGIT;

// The shared memory of a draw.
struct DrawScratch {
  // Tokens that may still be drawn, once they are few: values and ids.
  static constexpr int SHORT = 4096;
  float values[SHORT];
  int ids[SHORT];
  union {
    double mass[BINS];
    int count[BINS];
    uint64_t ranks[LISTED];
  };
  double warps[32];
  int found[2];
  // The part of the tokens in which the draw goes on.
  int begin, end;
  double before;
};

// Adds to a bin from every lane that takes part. Lanes that share the first one's bin
// are summed before, when they are many: weights of like size pile up on few bins.
template <class T>
__device__ __forceinline__ void addToBin(T* bins, int bin, T x, bool takesPart) {
  const uint32_t active = __ballot_sync(~0u, takesPart);
  if (!active) return;
  const int first = __ffs(active) - 1, firstBin = __shfl_sync(~0u, bin, first);
  const bool same = takesPart && bin == firstBin;
  if (__popc(__ballot_sync(~0u, same)) > 4) {
    T sum = same ? x : T(0);
#pragma unroll
    for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
    if ((int)(threadIdx.x & 31) == first) atomicAdd(&bins[bin], sum);
    takesPart = takesPart && !same;
  }
  if (takesPart) atomicAdd(&bins[bin], x);
}

// The bin at which the prefix of the bins, from the highest down, reaches need; need
// is left with what that bin must give. Empty bins hold no end; -1 when all are empty.
template <class T>
__device__ static int findBin(const T* bins, T& need, T* scratch, int* found) {
  const int b = BINS - 1 - threadIdx.x;
  const T x = bins[b];
  T total;
  if (threadIdx.x == 0) found[0] = BINS, found[1] = -1;
  const T before = blockScan(x, total, scratch);
  if (x > 0) {
    if (need <= before + x) atomicMin(&found[0], (int)threadIdx.x);
    atomicMax(&found[1], (int)threadIdx.x);
  }
  __syncthreads();
  const int t = found[0] < BINS ? found[0] : found[1];
  __syncthreads();
  if (threadIdx.x == t) scratch[0] = need - before;
  __syncthreads();
  if (t >= 0) need = scratch[0];
  __syncthreads();
  return t < 0 ? -1 : BINS - 1 - t;
}

// The tokens that may be drawn. Each warp owns a contiguous part of them and walks it
// in order, because ties and the draw go by id.
struct Candidates {
  const float* line;
  Mask mask;
  const int* ids;  // of the list of those left; null while they are the vocabulary
  int size;
  int begin, end;  // this warp's part
  float hi, scale, minP;
  // top_k keeps logits above keptLogit, and of those equal to it equalLogits in this
  // warp's part; top_p does so for weights. 0 keeps all.
  uint32_t keptLogit, keptWeight;
  int equalLogits, equalWeights;
  float power;  // 2^(lane/32)

  // Goes on with a part of the tokens, of which each warp takes one.
  __device__ __forceinline__ void split(int from, int to) {
    const int part = (to - from + 1023) / 1024 * 32;
    begin = min(from + (int)(threadIdx.x >> 5) * part, to);
    end = min(begin + part, to);
  }
  __device__ __forceinline__ void take(const float* values, const int* theirIDs, int n, Mask m) {
    line = values;
    ids = theirIDs;
    size = n;
    mask = m;
    split(0, n);
  }
  // The exponent of a weight.
  __device__ __forceinline__ float exponent(float x) const { return __fmul_rn(__fsub_rn(x, hi), scale); }
  // The weight of a logit; all lanes call.
  __device__ __forceinline__ float weigh(float x) const {
    float d = exponent(x);
    if (d > 0) d = 0;
    const float e = exp32(d, power);
    return d > -87.f && !(e < minP) ? e : 0.f;  // not a number weighs nothing
  }
  // Calls f(index, logit) for 32 logits at a time, in order, by the whole warp; past the
  // end with -Inf. AHEAD loads are in flight.
  template <int AHEAD = 4, class F>
  __device__ __forceinline__ void scan(F f) const {
    for (int from = begin; from < end; from += 32 * AHEAD) {
      float xs[AHEAD];
#pragma unroll
      for (int u = 0; u < AHEAD; ++u) {
        const int i = from + 32 * u + (threadIdx.x & 31);
        xs[u] = i < end ? line[i] : -INFINITY;
      }
      if (mask.words) {
        uint32_t allowed[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) allowed[u] = mask.bits(from + 32 * u);
#pragma unroll
        for (int u = 0; u < AHEAD; ++u)
          if (!(allowed[u] >> (threadIdx.x & 31) & 1)) xs[u] = -INFINITY;
      }
#pragma unroll
      for (int u = 0; u < AHEAD; ++u) f(from + 32 * u + (int)(threadIdx.x & 31), xs[u]);
    }
  }
  // Calls f(index, weight) likewise; what top_k and top_p have dropped weighs nothing.
  template <class F>
  __device__ __forceinline__ void walk(F f) const {
    const uint32_t below = (1u << (threadIdx.x & 31)) - 1;
    int logits = equalLogits, weights = equalWeights;
    scan([&](int i, float x) {
      bool keep = x > -INFINITY;
      if (keptLogit) {
        const uint32_t key = ordered(x), same = __ballot_sync(~0u, keep && key == keptLogit);
        keep = keep && (key > keptLogit || (key == keptLogit && __popc(same & below) < logits));
        logits -= __popc(same);
      }
      float w = weigh(x);
      if (!keep) w = 0;
      if (keptWeight) {
        const uint32_t bits = __float_as_uint(w), same = __ballot_sync(~0u, bits == keptWeight);
        if (!(bits > keptWeight || (bits == keptWeight && __popc(same & below) < weights))) w = 0;
        weights -= __popc(same);
      }
      f(i, w);
    });
  }
  // Goes on with the tokens that keep(logit) names, in order, if the list holds them.
  template <class F>
  __device__ __forceinline__ void shorten(DrawScratch& s, F keep) {
    int mine = 0, total;
    scan<8>([&](int, float x) { mine += keep(x); });
    int at = __shfl_sync(~0u, blockScan(mine, total, (int*)s.warps), 0);
    if (total > s.SHORT) return;
    scan<8>([&](int i, float x) {
      const bool k = keep(x);
      const uint32_t all = __ballot_sync(~0u, k);
      if (k) {
        const int place = at + __popc(all & ((1u << (threadIdx.x & 31)) - 1));
        s.values[place] = x;
        s.ids[place] = i;
      }
      at += __popc(all);
    });
    __syncthreads();
    take(s.values, s.ids, total, Mask{});
  }

  __device__ __forceinline__ void topK(DrawScratch& s, int k, Best top);
  __device__ __forceinline__ void topP(DrawScratch& s, float share);
  __device__ __forceinline__ int draw(DrawScratch& s, double uniform);
};

// Keeps the k tokens with the largest logits; top is the likeliest of this thread's.
__device__ __forceinline__ void Candidates::topK(DrawScratch& s, int k, Best top) {
  // Of the likeliest tokens of 1024 disjoint parts, as many as top_k are at least the
  // top_k-th of them, so nothing below that one is kept: most of a vocabulary.
  const uint64_t limit = rankLimit(rankOf(top.value, top.id), k);
  if (limit) shorten(s, [&](float x) { return x > -INFINITY && ordered(x) >= (uint32_t)(limit >> 32); });
  // A radix select by digits of 10, 10, 10 and 2 bits; need is left with how many of
  // those equal to the last one kept stay, lowest ids first.
  uint32_t prefix = 0;
  int bin = 0, need = k;
  for (int shift = 22; shift > -DIGIT && bin >= 0; shift -= DIGIT) {
    const int low = max(shift, 0), bits = shift < 0 ? DIGIT + shift : DIGIT;
    s.count[threadIdx.x] = 0;
    __syncthreads();
    scan([&](int, float x) {
      const uint32_t key = ordered(x);
      addToBin(s.count, (int)(key >> low & ((1u << bits) - 1)), 1, x > -INFINITY && (shift == 22 || key >> (low + bits) == prefix));
    });
    __syncthreads();
    bin = findBin(s.count, need, (int*)s.warps, s.found);
    prefix = prefix << bits | (uint32_t)max(bin, 0);
  }
  int same = 0, total;
  scan([&](int, float x) { same += x > -INFINITY && ordered(x) == prefix; });
  const int before = blockScan(same, total, (int*)s.warps);
  keptLogit = prefix;
  equalLogits = need - __shfl_sync(~0u, before, 0);
}

// Keeps the shortest prefix of the tokens, in order of weight, that holds a share of
// what all of them weigh.
__device__ __forceinline__ void Candidates::topP(DrawScratch& s, float share) {
  // What all weigh, and what those above some weights do: when one of these holds
  // enough, nothing below it is kept. EXPONENTS are the logarithms, rounded down.
  constexpr int STEPS = 4;
  constexpr float WEIGHTS[STEPS] = {0.05f, 0.01f, 1e-3f, 1e-4f}, EXPONENTS[STEPS] = {-2.9958f, -4.6052f, -6.9078f, -9.2104f};
  double all = 0, above[STEPS] = {}, total;
  auto add = [&](float w) {
    all += w;
    if (w < WEIGHTS[STEPS - 1]) return;
#pragma unroll
    for (int i = 0; i < STEPS; ++i)
      if (w >= WEIGHTS[i]) above[i] += w;
  };
  if (keptLogit)
    walk([&](int, float w) { add(w); });
  else
    eachLogit(line, size, mask, [&](int, float x) { add(weigh(x)); });
  blockScan(all, total, s.warps);
  double need = (double)share * total;
  // Tokens that weigh less than this cannot reach into the prefix: all of them
  // together are less than what it leaves.
  const float least = (float)((1 - (double)share) * total / size * 0.999);
  if (!keptLogit) {  // what top_k keeps goes by rank, which the list would not know
    float floor = 0;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      double sum;
      blockScan(above[i], sum, s.warps);
      if (floor == 0 && sum >= need * (1 + 1e-9)) floor = EXPONENTS[i];
    }
    if (floor < 0) shorten(s, [&](float x) { return x > -INFINITY && exponent(x) >= floor; });
  }
  uint32_t prefix = 0;
  int bin = 0;
  for (int shift = 2 * DIGIT; shift >= 0 && bin >= 0; shift -= DIGIT) {
    s.mass[threadIdx.x] = 0;
    __syncthreads();
    walk([&](int, float w) {
      const uint32_t b = __float_as_uint(w);
      addToBin(s.mass, (int)(b >> shift & (BINS - 1)), (double)w, w > least && b >> (shift + DIGIT) == prefix);
    });
    __syncthreads();
    bin = findBin(s.mass, need, s.warps, s.found);
    prefix = prefix << DIGIT | (uint32_t)max(bin, 0);
  }
  if (bin < 0) return;
  int same = 0, allSame;
  walk([&](int, float w) { same += __float_as_uint(w) == prefix; });
  const int before = blockScan(same, allSame, (int*)s.warps);
  keptWeight = prefix;
  equalWeights = max((int)fmin(ceil(need / (double)__uint_as_float(prefix)), 1e9), 1) - __shfl_sync(~0u, before, 0);
}

// Draws: the token at which the running sum of the weights passes a share of their
// total; the last one that weighs anything when rounding keeps the sum below it; -1
// when none does.
__device__ __forceinline__ int Candidates::draw(DrawScratch& s, double uniform) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  double before = 0, target = 0, mine, total;
  for (bool first = true;; first = false) {
    mine = 0;
    walk([&](int, float w) { mine += w; });
    double ahead = blockScan(mine, total, s.warps);
    if (first) target = uniform * total;
#pragma unroll
    for (int d = 16; d; d >>= 1) mine += __shfl_xor_sync(~0u, mine, d);
    ahead = before + __shfl_sync(~0u, ahead, 0);
    if (threadIdx.x == 0) s.found[0] = 32, s.found[1] = 0;
    __syncthreads();
    if (lane == 0 && mine > 0) {
      if (ahead + mine > target) atomicMin(&s.found[0], warp);
      atomicMax(&s.found[1], warp);
    }
    __syncthreads();
    const bool chosen = warp == (s.found[0] < 32 ? s.found[0] : s.found[1]);
    if (chosen && lane == 0) s.begin = begin, s.end = end, s.before = ahead;
    __syncthreads();
    before = s.before;
    // A long part is split again, unless it keeps count of equals.
    if (s.end - s.begin > 128 && !keptLogit && !keptWeight) {
      split(s.begin, s.end);
      continue;
    }
    if (chosen) {
      int last = -1;
      bool done = false;
      walk([&](int i, float w) {
        if (done) return;
        double upTo = w;
#pragma unroll
        for (int d = 1; d < 32; d <<= 1) {
          const double y = __shfl_up_sync(~0u, upTo, d);
          if (lane >= d) upTo += y;
        }
        const uint32_t some = __ballot_sync(~0u, w > 0), past = __ballot_sync(~0u, w > 0 && before + upTo > target);
        const int base = i - lane;
        if (past)
          last = base + __ffs(past) - 1, done = true;
        else if (some)
          last = base + 31 - __clz(some);
        before += __shfl_sync(~0u, upTo, 31);
      });
      if (lane == 0) s.found[0] = last;
    }
    __syncthreads();
    const int at = s.found[0];
    return at >= 0 && ids ? ids[at] : at;
  }
}
