// From logits to tokens.
#include "common.cuh"

struct Best {
  float value;
  int id;
};
__device__ __forceinline__ Best better(Best a, Best b) { return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a; }

// The likeliest token of a row of logits, by all of a block of 1024 threads; mine gets
// the largest number that this thread saw.
__device__ static Best likeliest(const float* line, int n, Best* bests, float& mine) {
  Best best{-INFINITY, n};
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += 1024) {
    const float x = line[i];
    best = better(best, Best{x == x ? x : -INFINITY, i});
  }
  mine = best.value;
#pragma unroll
  for (int d = 16; d; d >>= 1) best = better(best, Best{__shfl_xor_sync(~0u, best.value, d), __shfl_xor_sync(~0u, best.id, d)});
  if ((threadIdx.x & 31) == 0) bests[threadIdx.x >> 5] = best;
  __syncthreads();
  best = bests[threadIdx.x & 31];
#pragma unroll
  for (int d = 16; d; d >>= 1) best = better(best, Best{__shfl_xor_sync(~0u, best.value, d), __shfl_xor_sync(~0u, best.id, d)});
  return best;
}

// The logarithm of the sum of e^(x - top).
__device__ static float logSum(const float* line, int n, float top, float* sums) {
  float sum = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += 1024) {
    const float x = line[i];
    if (x == x) sum += __expf(x - top);
  }
  sum = warpSum(sum);
  if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
  __syncthreads();
  return logf(warpSum(sums[threadIdx.x & 31]));
}

// One thread block a row.
extern "C" __global__ void __launch_bounds__(1024) argmax(const float* logits, int* tokens, float* logprobs, int64_t rows, int64_t vocab) {
  __shared__ Best bests[32];
  __shared__ float sums[32];
  const int64_t r = blockIdx.x;
  launchDependents();
  waitForPrevious();
  if (r >= rows) return;
  const float* line = logits + r * vocab;
  float mine;
  const Best best = likeliest(line, (int)vocab, bests, mine);
  if (threadIdx.x == 0) tokens[r] = best.id;
  if (!logprobs) return;
  const float sum = logSum(line, (int)vocab, best.value, sums);
  if (threadIdx.x == 0) logprobs[r] = -sum;
}

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

// The bits of a number as an integer in the same order.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t b = __float_as_uint(x);
  return b >> 31 ? ~b : b | 0x80000000u;
}

// One thread block a row: temperature, min_p, top_k, top_p and a draw, as
// runtime/sample does them. Each warp owns a contiguous part of the vocabulary and
// walks it in order, because ties and the draw go by id.
constexpr int DIGIT = 10, BINS = 1 << DIGIT;

struct Sampling {
  const float* line;
  int begin, end;  // this warp's part
  float hi, scale, minP;
  // top_k keeps logits above kept, and `equals` of those equal to it in this warp's
  // part; top_p does so for weights.
  uint32_t keptLogit, keptWeight;
  int equalLogits, equalWeights;
  float power;  // 2^(lane/32)

  // The weight of a logit; all lanes call.
  __device__ __forceinline__ float weigh(float x) const {
    float d = __fmul_rn(__fsub_rn(x, hi), scale);
    if (d > 0) d = 0;
    const float e = exp32(d, power);
    return d > -87.f && !(e < minP) ? e : 0.f;  // not a number weighs nothing
  }
  // Calls f(index, logit) for 32 logits at a time, in order, by the whole warp; past the
  // end with -Inf.
  template <class F>
  __device__ __forceinline__ void scan(F f) const {
    constexpr int AHEAD = 4;  // loads in flight
    for (int from = begin; from < end; from += 32 * AHEAD) {
      float xs[AHEAD];
#pragma unroll
      for (int u = 0; u < AHEAD; ++u) {
        const int i = from + 32 * u + (threadIdx.x & 31);
        xs[u] = i < end ? line[i] : -INFINITY;
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

extern "C" __global__ void __launch_bounds__(1024) sample(const float* logits, const SampleRow* params, int* tokens, float* logprobs, int64_t rows, int64_t vocab) {
  // Tokens that may still be drawn, once they are few: values and ids.
  constexpr int SHORT = 2048;
  __shared__ float listValues[SHORT];
  __shared__ int listIds[SHORT];
  __shared__ Best bests[32];
  __shared__ float sums[32];
  __shared__ union {
    double mass[BINS];
    int count[BINS];
  } bins;
  __shared__ double scratch[32];
  __shared__ int found[2], chosen;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n = (int)vocab;
  const int64_t r = blockIdx.x;
  launchDependents();
  waitForPrevious();
  if (r >= rows) return;
  const SampleRow p = params[r];
  const float* line = logits + r * vocab;
  float top;
  const Best best = likeliest(line, n, bests, top);
  int token = best.id;
  if (p.temperature >= 1e-5f && best.value > -INFINITY) {
    constexpr float LARGEST = 3.402823466e38f;
    Sampling s{};
    s.hi = fminf(best.value, LARGEST);
    s.scale = __fdiv_rn(1.f, fminf(p.temperature, LARGEST));
    s.minP = fminf(p.minP, 1.f);
    s.power = (float)exp2(lane / 32.0);
    int size;
    const int* ids = nullptr;  // of the list; null while the vocabulary is walked
    auto over = [&](const float* values, int count) {
      s.line = values;
      size = count;
      const int part = (count + 1023) / 1024 * 32;
      s.begin = min(warp * part, count);
      s.end = min(s.begin + part, count);
    };
    over(line, n);
    // Goes on with the tokens that keep(logit) names, in order, if the list holds them.
    auto shorten = [&](auto keep) {
      int count = 0, total;
      s.scan([&](int, float x) { count += keep(x); });
      int at = __shfl_sync(~0u, blockScan(count, total, (int*)scratch), 0);
      if (total > SHORT) return;
      s.scan([&](int i, float x) {
        const bool k = keep(x);
        const uint32_t all = __ballot_sync(~0u, k);
        if (k) {
          const int place = at + __popc(all & ((1u << lane) - 1));
          listValues[place] = x;
          listIds[place] = i;
        }
        at += __popc(all);
      });
      __syncthreads();
      over(listValues, total);
      ids = listIds;
    };

    if (p.topK > 0 && p.topK < n) {
      // The key of the need-th largest of the numbers that each() passes to its argument:
      // a radix select by digits of 10, 10, 10 and 2 bits. need is left with how many of
      // those equal to it are among them.
      auto select = [&](int& need, auto each) {
        uint32_t prefix = 0;
        int bin = 0;
        for (int shift = 22; shift > -DIGIT && bin >= 0; shift -= DIGIT) {
          const int low = max(shift, 0), bits = shift < 0 ? DIGIT + shift : DIGIT;
          bins.count[threadIdx.x] = 0;
          __syncthreads();
          each([&](float x) {
            const uint32_t key = ordered(x);
            addToBin(bins.count, (int)(key >> low & ((1u << bits) - 1)), 1, x > -INFINITY && (shift == 22 || key >> (low + bits) == prefix));
          });
          __syncthreads();
          bin = findBin(bins.count, need, (int*)scratch, found);
          prefix = prefix << bits | (uint32_t)max(bin, 0);
        }
        return prefix;
      };
      // Of the largest numbers of 1024 disjoint parts, as many as top_k are at least the
      // top_k-th of them, so nothing below that one is kept: most of a vocabulary.
      int need = p.topK;
      if (__syncthreads_count(top > -INFINITY) >= need) {
        const uint32_t floor = select(need, [&](auto f) { f(top); });
        shorten([&](float x) { return x > -INFINITY && ordered(x) >= floor; });
        need = p.topK;
      }
      const uint32_t prefix = select(need, [&](auto f) { s.scan([&](int, float x) { f(x); }); });
      // need of the tokens equal to the last one kept stay, lowest ids first.
      int same = 0, total;
      s.scan([&](int, float x) { same += x > -INFINITY && ordered(x) == prefix; });
      const int before = blockScan(same, total, (int*)scratch);
      s.keptLogit = prefix;
      s.equalLogits = need - __shfl_sync(~0u, before, 0);
    }

    double mine = 0;
    double total;
    if (!(p.topP > 0 && p.topP < 1)) {
      s.walk([&](int, float w) { mine += w; });
      blockScan(mine, total, scratch);
    } else {
      // The mass of all weights, and above some weights: when one of these holds what
      // top_p needs, nothing below it is kept.
      constexpr int STEPS = 4;
      constexpr float WEIGHTS[STEPS] = {0.05f, 0.01f, 1e-3f, 1e-4f};
      double above[STEPS] = {};
      s.walk([&](int, float w) {
        mine += w;
#pragma unroll
        for (int i = 0; i < STEPS; ++i)
          if (w >= WEIGHTS[i]) above[i] += w;
      });
      blockScan(mine, total, scratch);
      double need = (double)p.topP * total;
      // Tokens that weigh less than this cannot reach into the prefix: all of them
      // together are less than what it leaves.
      const float least = (float)((1 - (double)p.topP) * total / n * 0.999);
      if (!ids) {
        float floor = 0;
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
          double sum;
          blockScan(above[i], sum, scratch);
          if (floor == 0 && sum >= need * (1 + 1e-9)) floor = WEIGHTS[i];
        }
        // What top_k keeps goes by rank, which the list would not know.
        if (floor > 0 && !s.keptLogit) shorten([&](float x) { const float w = s.weigh(x); return x > -INFINITY && w >= floor; });
      }
      uint32_t prefix = 0;
      int bin = 0;
      for (int shift = 2 * DIGIT; shift >= 0 && bin >= 0; shift -= DIGIT) {
        bins.mass[threadIdx.x] = 0;
        __syncthreads();
        s.walk([&](int, float w) {
          const uint32_t b = __float_as_uint(w);
          addToBin(bins.mass, (int)(b >> shift & (BINS - 1)), (double)w, w > least && b >> (shift + DIGIT) == prefix);
        });
        __syncthreads();
        bin = findBin(bins.mass, need, scratch, found);
        prefix = prefix << DIGIT | (uint32_t)max(bin, 0);
      }
      if (bin >= 0) {
        int same = 0, all;
        s.walk([&](int, float w) { same += __float_as_uint(w) == prefix; });
        const int before = blockScan(same, all, (int*)scratch);
        s.keptWeight = prefix;
        s.equalWeights = max((int)fmin(ceil(need / (double)__uint_as_float(prefix)), 1e9), 1) - __shfl_sync(~0u, before, 0);
      }
      mine = 0;
      s.walk([&](int, float w) { mine += w; });
      blockScan(mine, total, scratch);
    }

    // The token at which the running sum passes the target; the last one that weighs
    // anything when rounding keeps the sum below it.
    const double target = p.uniform * total;
#pragma unroll
    for (int d = 16; d; d >>= 1) mine += __shfl_xor_sync(~0u, mine, d);
    double ignored;
    double before = blockScan(lane == 0 ? mine : 0.0, ignored, scratch);
    before = __shfl_sync(~0u, before, 0);
    if (threadIdx.x == 0) found[0] = 32, found[1] = 0, chosen = -1;
    __syncthreads();
    if (lane == 0 && mine > 0) {
      if (before + mine > target) atomicMin(&found[0], warp);
      atomicMax(&found[1], warp);
    }
    __syncthreads();
    if (warp == (found[0] < 32 ? found[0] : found[1])) {
      double sum = before;
      int last = -1;
      bool done = false;
      s.walk([&](int i, float w) {
        if (done) return;
        double upTo = w;
#pragma unroll
        for (int d = 1; d < 32; d <<= 1) {
          const double y = __shfl_up_sync(~0u, upTo, d);
          if (lane >= d) upTo += y;
        }
        const uint32_t some = __ballot_sync(~0u, w > 0), past = __ballot_sync(~0u, w > 0 && sum + upTo > target);
        const int base = i - lane;
        if (past)
          last = base + __ffs(past) - 1, done = true;
        else if (some)
          last = base + 31 - __clz(some);
        sum += __shfl_sync(~0u, upTo, 31);
      });
      if (lane == 0) chosen = last;
    }
    __syncthreads();
    if (chosen >= 0) token = ids ? ids[chosen] : chosen;
  }
  if (threadIdx.x == 0) tokens[r] = token;
  if (!logprobs) return;
  const float sum = logSum(line, n, best.value, sums);
  if (threadIdx.x == 0) logprobs[r] = line[token] - best.value - sum;
}
