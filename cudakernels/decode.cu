// Decode attention over paged, ragged keys and values.
//
// A thread block takes one run of the pages that decode_plan concatenated: a
// producer warp copies them into a ring in shared memory, four consumer warps
// compute. Per page, consumer w computes S^T = K Q^T of tokens 16w..16w+15
// (m16n8k16: tokens are the 16 rows, query heads the 8 columns, so 1 to 8 heads
// cost the same); the warps exchange S through shared memory; each forms P of all
// 64 tokens and accumulates O^T = V^T P^T for its quarter of the dimensions. So an
// accumulator is final for its dimensions and a run ends with plain stores.
//
// A pair that is whole in one thread block goes straight to the output, a part to
// the workspace, whose words hold a NaN that no arithmetic produces until they are
// written. A thread block that is out of pages polls for its share of the merge: no
// counter, no fence, no atomic, and no thread block that merges alone.
#include "plan.cuh"

// Bits of a page's description, above its tokens (1 to 64).
constexpr uint32_t NEWEST = 256, FIRST = 512, LAST = 1024, END = 2048;
constexpr uint32_t NOT_READY = 0xffffffffu;
constexpr int CONSUMERS = 128, THREADS = 160, MAX_PAGES = 2;

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

__device__ __forceinline__ uint4 loadRelaxed4(const void* p) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ uint2 loadRelaxed2(const void* p) {
  uint2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ void storeRelaxed(void* p, float v) { asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory"); }
__device__ __forceinline__ void storeRelaxed2(void* p, float x, float y) {
  asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1,%2};" ::"l"(p), "f"(x), "f"(y) : "memory");
}

// Shared memory behind the ring.
template <int HD>
struct Fixed {
  static constexpr int SCORES = 72;           // padded row of S
  static constexpr int QUERY = HD * 2 + 16;   // bytes of a padded query
  uint64_t full[2 * MAX_PAGES], empty[2 * MAX_PAGES], query[MAX_PAGES];  // keys, values, keys, values
  uint4 meta[MAX_PAGES];                      // description, pair, workspace slot
  float scores[2][8][SCORES];
  uint8_t queries[MAX_PAGES][8 * QUERY];
};

// 32 pages of the run at a time, one a lane.
struct Batch {
  int page, bits, pair, slot;
  int count, head;  // pages; head of the last one
};

// The pages of positions at..at+31 of the run, in the order in which they are taken:
// the tail first, because it holds no page that the kernel before may still write.
__device__ __forceinline__ Batch lookUp(const DecodeArgs& a, const DecodePlan& plan, const Run& run, int at, int head, int lane) {
  Batch b;
  const bool tail = at < run.tail;
  b.count = min(32, (tail ? run.tail : run.pages) - at);
  if (tail) head = run.tailHead;
  const int g = tail ? run.begin + run.pages - run.tail + at + lane : run.begin + at - run.tail + lane;
  // Every pair has a page, so 32 pages lie in 32 pairs.
  const int4 h = __ldg(plan.heads + min(head + lane, run.pairs));
  int k = 0;
#pragma unroll
  for (int d = 16; d; d >>= 1)
    if (__shfl_sync(~0u, h.x, k + d) <= g) k += d;
  const int first = __shfl_sync(~0u, h.x, k), start = __shfl_sync(~0u, h.y, k), slot = __shfl_sync(~0u, h.z, k), pos = __shfl_sync(~0u, h.w, k);
  const int i = g - first, q = pos / BLOCK, pages = q - start + 1 + (start > 0), end = run.begin + run.pages;
  const int block = start == 0 ? i : i == 0 ? 0 : start + i - 1;
  b.pair = head + k;
  b.head = __shfl_sync(~0u, b.pair, b.count - 1);
  b.page = lane < b.count ? __ldg(a.table + ((int64_t)slot * a.heads + a.layer * a.kvHeads + b.pair % a.kvHeads) * a.maxBlocks + block) : 0;
  b.bits = i == pages - 1 ? (pos % BLOCK + 1) | NEWEST : BLOCK;
  if (i == 0 || g == run.begin) b.bits |= FIRST;
  if (i == pages - 1 || g == end - 1) b.bits |= LAST;
  const bool whole = first >= run.begin && first + pages <= end;
  b.slot = whole ? -1 : 2 * (int)blockIdx.x + (first >= run.begin);
  return b;
}

template <int HD>
__device__ __forceinline__ void produce(const DecodeArgs& a, const DecodePlan& plan, const Run& run, Fixed<HD>& f, uint32_t ring, int lane) {
  constexpr int PAGE = 2 * TILE<HD>;
  const int pages = a.stages >> 1, G = a.group;
  const uint32_t full = sharedAddress(f.full), empty = sharedAddress(f.empty), query = sharedAddress(f.query), queries = sharedAddress(f.queries);
  constexpr int QB = HD * 2;
#if HOPPER
  const uint64_t policy = evictFirst();
#endif
  auto issueQuery = [&](int at, int pair) {
#if HOPPER
    if (lane == 0) barExpect(query + 8 * at, G * QB);
    __syncwarp();
    if (lane < G) bulkCopy(queries + at * 8 * Fixed<HD>::QUERY + lane * Fixed<HD>::QUERY, a.q + ((int64_t)pair * G + lane) * HD, QB, query + 8 * at);
#else
    for (int i = lane; i < G * (QB / 16); i += 32) {
      const int r = i / (QB / 16), c = i % (QB / 16);
      copyAsync16(queries + at * 8 * Fixed<HD>::QUERY + r * Fixed<HD>::QUERY + c * 16, (const char*)(a.q + ((int64_t)pair * G + r) * HD) + c * 16);
    }
    copyAsyncArrive(query + 8 * at);
#endif
  };
  // Copies the rows of a tile that hold tokens, rounded up to 16.
  auto issueTile = [&](uint32_t dst, const char* src, int rows, uint32_t bar) {
#if HOPPER
    if (lane == 0) {
      barExpect(bar, rows * QB);
      if (rows == BLOCK) {
        bulkCopyHint(dst, src, TILE<HD>, bar, policy);
      } else {
#pragma unroll
        for (int c = 0; c < HD / 64; ++c) bulkCopyHint(dst + c * 8192, src + c * 8192, rows * 128, bar, policy);
      }
    }
#else
    for (int c = 0; c < HD / 64; ++c)
      for (int i = lane; i < rows * 8; i += 32) copyAsync16(dst + c * 8192 + i * 16, src + c * 8192 + i * 16);
    copyAsyncArrive(bar);
#endif
  };

  int at = 0, phase = 1;
  bool waited = false;
  uint32_t pending = 0;           // ring places whose query must wait
  int pendingPair[MAX_PAGES];
  auto wait = [&]() {
    waitForPrevious();
    waited = true;
#pragma unroll
    for (int j = 0; j < MAX_PAGES; ++j)
      if (pending >> j & 1) issueQuery(j, pendingPair[j]);
  };
  Batch b = lookUp(a, plan, run, 0, run.head, lane), next{};
  for (int i = 0, k = 0; i < run.pages; ++i) {
    const int page = __shfl_sync(~0u, b.page, k), pair = __shfl_sync(~0u, b.pair, k), slot = __shfl_sync(~0u, b.slot, k);
    const uint32_t bits = __shfl_sync(~0u, b.bits, k);
    // Beyond the first round of the ring the consumers have passed their wait anyway; a
    // newest page may still be written by the kernel before.
    if (!waited && ((bits & NEWEST) || i >= pages)) wait();
    const int rows = ((bits & 255) + 15) & ~15;
    const char* src = a.pool + (int64_t)page * PAGE;
    const uint32_t dst = ring + at * PAGE;
    if (!HOPPER || lane == 0) barWait(empty + 16 * at, phase);
    if (lane == 0) {
      f.meta[at] = make_uint4(i == run.pages - 1 ? bits | END : bits, pair, slot, 0);
#if !HOPPER
      barArrive(full + 16 * at);  // orders the description, which is no asynchronous copy
#endif
    }
    __syncwarp();
    issueTile(dst, src, rows, full + 16 * at);
    if (!HOPPER || lane == 0) barWait(empty + 16 * at + 8, phase);
    issueTile(dst + TILE<HD>, src + TILE<HD>, rows, full + 16 * at + 8);
    __syncwarp();
    if (bits & FIRST) {  // the query's place is free when the values' is
      if (waited) {
        issueQuery(at, pair);
      } else {
        pending |= 1u << at;
#pragma unroll
        for (int j = 0; j < MAX_PAGES; ++j)
          if (j == at) pendingPair[j] = pair;
      }
    }
    if (++at == pages) at = 0, phase ^= 1;
    // The next batch is looked up while the ring is full.
    const int left = run.pages - (i - k + b.count);
    if (k == min(2, b.count - 1) && left > 0) next = lookUp(a, plan, run, i - k + b.count, i - k + b.count == run.tail ? run.head : b.head, lane);
    if (++k == b.count) k = 0, b = next;
  }
  if (!waited) wait();
#if !HOPPER
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

template <int HD>
__device__ __forceinline__ void consume(const DecodeArgs& a, Fixed<HD>& f, uint32_t ring, int w, int lane) {
  constexpr int PAGE = 2 * TILE<HD>, SP = Fixed<HD>::SCORES;
  constexpr int SLICE = HD / 4, MT = SLICE / 16;  // a warp's dimensions; its 16-row tiles of O^T
  const int G = a.group, pages = a.stages >> 1, row = lane & 7, quad = lane & 3;
  const uint32_t full = sharedAddress(f.full), empty = sharedAddress(f.empty), query = sharedAddress(f.query);

  // ldmatrix addresses in a tile; for K a step of 16 dimensions is an XOR with 32 in 128
  // bytes, and 8192 per 64 dimensions.
  const uint32_t kBase = ring + (16 * w + ((lane >> 3) & 1) * 8 + row) * 128 + (((lane >> 4) ^ row) << 4);
  uint32_t vBase[MT];
#pragma unroll
  for (int i = 0; i < MT; ++i) {
    const int c = (SLICE / 8) * w + 2 * i + ((lane >> 3) & 1);
    vBase[i] = ring + TILE<HD> + (c >> 3) * 8192 + ((lane >> 4) * 8 + row) * 128 + (((c & 7) ^ row) << 4);
  }
  const int n = lane >> 2, h0 = quad * 2;  // my head as a column of P; my two heads as columns of O^T
  // Columns beyond G repeat a head; nobody reads them.
  const uint32_t qBase = sharedAddress(f.queries) + (row % G) * Fixed<HD>::QUERY + (lane >> 3) * 16;
  // S: written as [head h0, h0+1][token 16w + lane/4 (+8)], read as [head n][tokens 8t + 2*quad (+1)].
  float* const sWrite = &f.scores[0][h0][16 * w + n];
  const float* const sRead = &f.scores[0][n][2 * quad];

  int at = 0, phase = 0, buffer = 0;
  uint32_t queryPhase = 0;
  float m = -INFINITY, l = 0, o[2][MT][4];
  uint32_t q[HD / 16][2], ka[HD / 16][4];
  uint4 next;
  auto loadK = [&](int s) {  // the keys' fragments and the page's description; frees the keys
    next = f.meta[s];
#pragma unroll
    for (int k = 0; k < HD / 16; ++k) ldsm4(ka[k], ((kBase + s * PAGE) ^ ((k & 3) << 5)) + (k >> 2) * 8192);
    __syncwarp();
    if (lane == 0) barArrive(empty + 16 * s);
  };
  auto ready = [&](uint32_t bar, int ph) { return __shfl_sync(~0u, (int)barTest(bar, ph), 0) != 0; };
  barWait(full, 0);
  loadK(0);
  for (;;) {
    const uint4 meta = next;
    const uint32_t bits = meta.x;
    const int tokens = bits & 255;
    if (bits & FIRST) {
      barWait(query + 8 * at, queryPhase >> at & 1);
      queryPhase ^= 1u << at;
      // Q as the B operand (HD x 8 heads): column n, rows 2*quad (+1, +8, +9).
#pragma unroll
      for (int k = 0; k < HD / 32; ++k) {
        uint32_t x[4];
        ldsm4(x, qBase + at * 8 * Fixed<HD>::QUERY + k * 64);
        q[2 * k][0] = x[0]; q[2 * k][1] = x[1]; q[2 * k + 1][0] = x[2]; q[2 * k + 1][1] = x[3];
      }
      m = -INFINITY; l = 0;
#pragma unroll
      for (int i = 0; i < MT; ++i)
#pragma unroll
        for (int k = 0; k < 4; ++k) o[0][i][k] = o[1][i][k] = 0;
    }
    const int atNext = at + 1 == pages ? 0 : at + 1, phaseNext = at + 1 == pages ? phase ^ 1 : phase;
    float c[4][4];
#pragma unroll
    for (int k = 0; k < 4; ++k) c[k][0] = c[k][1] = c[k][2] = c[k][3] = 0;
#pragma unroll
    for (int k = 0; k < HD / 16; ++k) mma(c[k & 3], ka[k], q[k][0], q[k][1]);
    uint32_t va[4][MT][4];
    auto loadV = [&]() {  // the values' fragments; frees the values
#pragma unroll
      for (int t = 0; t < 4; ++t)
#pragma unroll
        for (int i = 0; i < MT; ++i) ldsm4t(va[t][i], vBase[i] + at * PAGE + t * 2048);
      __syncwarp();
      if (lane == 0) barArrive(empty + 16 * at + 8);
    };
    const bool haveV = ready(full + 16 * at + 8, phase);
    if (haveV) loadV();
#pragma unroll
    for (int k = 0; k < 4; ++k) c[0][k] = ((c[0][k] + c[1][k]) + (c[2][k] + c[3][k])) * a.scale;
    if (tokens < BLOCK) {
      const int t0 = 16 * w + n;
      if (t0 >= tokens) c[0][0] = -INFINITY, c[0][1] = -INFINITY;
      if (t0 + 8 >= tokens) c[0][2] = -INFINITY, c[0][3] = -INFINITY;
    }
    float* sw = sWrite + buffer * 8 * SP;
    sw[0] = c[0][0]; sw[SP] = c[0][1]; sw[8] = c[0][2]; sw[SP + 8] = c[0][3];
    namedSync(2, CONSUMERS);
    const float* sr = sRead + buffer * 8 * SP;
    float2 v[8];
#pragma unroll
    for (int t = 0; t < 8; ++t) v[t] = *(const float2*)(sr + 8 * t);
    buffer ^= 1;
    bool have = false;
    if (!(bits & END)) {  // the next page's keys, if they are here
      have = ready(full + 16 * atNext, phaseNext);
      if (have) loadK(atNext);
    }
    float x4[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) x4[t] = fmaxf(fmaxf(v[t].x, v[t].y), fmaxf(v[t + 4].x, v[t + 4].y));
    float x = fmaxf(fmaxf(x4[0], x4[1]), fmaxf(x4[2], x4[3]));
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
    const float mn = fmaxf(m, x), scale = ex2(m - mn);
    m = mn;
    const float s0 = __shfl_sync(~0u, scale, quad * 8), s1 = __shfl_sync(~0u, scale, quad * 8 + 4);
    uint32_t p[8];
    float ls[4] = {0, 0, 0, 0};
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const float px = ex2(v[t].x - mn), py = ex2(v[t].y - mn);
      ls[t & 3] += px + py;
      p[t] = pack(px, py);
    }
    l = l * scale + ((ls[0] + ls[1]) + (ls[2] + ls[3]));
#pragma unroll
    for (int i = 0; i < MT; ++i)
#pragma unroll
      for (int k = 0; k < 2; ++k) { o[k][i][0] *= s0; o[k][i][1] *= s1; o[k][i][2] *= s0; o[k][i][3] *= s1; }
    if (!haveV) {
      barWait(full + 16 * at + 8, phase);
      loadV();
    }
#pragma unroll
    for (int t = 0; t < 4; ++t)
      if (16 * t < tokens) {
#pragma unroll
        for (int i = 0; i < MT; ++i) mma(o[t & 1][i], va[t][i], p[2 * t], p[2 * t + 1]);
      }

    if (bits & LAST) {  // the end of a pair in this run: my dimensions are final
      l += __shfl_xor_sync(~0u, l, 1);
      l += __shfl_xor_sync(~0u, l, 2);
      const int slot = (int)meta.z, d0 = SLICE * w + n;
      if (slot >= 0) {
        float* ml = a.workspace + (int64_t)2 * gridDim.x * G * HD;
        float* d = a.workspace + ((int64_t)slot * G + h0) * HD + d0;
        if (w == 0 && quad == 0 && n < G) storeRelaxed2(ml + (slot * G + n) * 2, m, l);
#pragma unroll
        for (int i = 0; i < MT; ++i) {
          if (h0 < G) { storeRelaxed(d + 16 * i, o[0][i][0] + o[1][i][0]); storeRelaxed(d + 16 * i + 8, o[0][i][2] + o[1][i][2]); }
          if (h0 + 1 < G) { storeRelaxed(d + HD + 16 * i, o[0][i][1] + o[1][i][1]); storeRelaxed(d + HD + 16 * i + 8, o[0][i][3] + o[1][i][3]); }
        }
      } else {
        const float inv = __fdividef(1.f, l), f0 = __shfl_sync(~0u, inv, quad * 8), f1 = __shfl_sync(~0u, inv, quad * 8 + 4);
        bf16* d = a.out + ((int64_t)meta.y * G + h0) * a.headDim + d0;
#pragma unroll
        for (int i = 0; i < MT; ++i)
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const int k = 16 * i + 8 * j;
            if (d0 + k >= a.headDim) continue;
            if (h0 < G) d[k] = __float2bfloat16((o[0][i][2 * j] + o[1][i][2 * j]) * f0);
            if (h0 + 1 < G) d[a.headDim + k] = __float2bfloat16((o[0][i][2 * j + 1] + o[1][i][2 * j + 1]) * f1);
          }
      }
    }
    if (bits & END) break;
    at = atNext; phase = phaseNext;
    if (!have) {
      barWait(full + 16 * at, phase);
      loadK(at);
    }
  }
}

// My share of the merge of cut pairs: elements of 4 floats, each by 2^lanes threads.
template <int HD>
__device__ __forceinline__ void mergeParts(const DecodeArgs& a, const DecodePlan& plan, int4 head, int4 item, int e) {
  const int G = a.group, quads = G * (HD / 4), share = head.y, log = head.z, width = 1 << log, sub = threadIdx.x & (width - 1);
  const int first = blockIdx.x * share, end = min(first + share, head.x * quads);
  const float* ml = a.workspace + (int64_t)2 * gridDim.x * G * HD;
  for (int e0 = first; e0 < end; e0 += CONSUMERS >> log) {
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

template <int HD>
__device__ __forceinline__ void decode(const DecodeArgs& a) {
  extern __shared__ __align__(1024) uint8_t shared[];
  Fixed<HD>& f = *(Fixed<HD>*)(shared + a.stages * TILE<HD>);
  const uint32_t ring = sharedAddress(shared);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const DecodePlan plan((char*)a.plan);
  launchDependents();

  if (warp == CONSUMERS / 32) {
    const int4 r0 = __ldg((const int4*)(plan.runs + blockIdx.x)), r1 = __ldg((const int4*)(plan.runs + blockIdx.x) + 1);
    const Run run{r0.x, r0.y, r0.z, r0.w, r1.x, r1.y, {0, 0}};
    if (lane < 2 * MAX_PAGES) {
      barInit(sharedAddress(f.full + lane), HOPPER ? 1 : lane & 1 ? 32 : 33);
      barInit(sharedAddress(f.empty + lane), CONSUMERS / 32);
      if (lane < MAX_PAGES) barInit(sharedAddress(f.query + lane), HOPPER ? 1 : 32);
#if HOPPER
      barInitFence();
#endif
    }
    __syncwarp();
    namedArrive(1, THREADS);
    if (run.pages > 0)
      produce<HD>(a, plan, run, f, ring, lane);
    else
      waitForPrevious();
    return;
  }

  const int pages = __ldg(&plan.runs[blockIdx.x].pages);
  const int4 head = __ldg(plan.head);
  const int e = blockIdx.x * head.y + (threadIdx.x >> head.z), quads = a.group * (HD / 4);
  const int4 item = e < min((int)(blockIdx.x + 1) * head.y, head.x * quads) ? __ldg(plan.items + e / quads) : make_int4(0, 0, 0, 0);
  namedSync(1, THREADS);
  waitForPrevious();
  const int words = 2 * gridDim.x * a.group * (HD + 2) / 4;
  for (int i = blockIdx.x * CONSUMERS + threadIdx.x; i < words; i += gridDim.x * CONSUMERS)
    ((uint4*)a.clear)[i] = make_uint4(NOT_READY, NOT_READY, NOT_READY, NOT_READY);
  if (pages > 0) consume<HD>(a, f, ring, warp, lane);
  mergeParts<HD>(a, plan, head, item, e);
}

#define DECODE(HD, PER_SM)                                                                                             \
  extern "C" __global__ void __launch_bounds__(THREADS, PER_SM) decode_attention_##HD(                                 \
      const char* pool, const char* plan, const int* table, const bf16* q, bf16* out, float* workspace, float* clear,  \
      int64_t layer, int64_t kvHeads, int64_t heads, int64_t maxBlocks, int64_t group, int64_t headDim, int64_t stages, \
      double scale) {                                                                                                  \
    decode<HD>({pool, plan, table, q, out, workspace, clear, (int)layer, (int)kvHeads, (int)heads, (int)group,         \
                (int)headDim, (int)stages, maxBlocks, (float)(scale * 1.4426950408889634)});                           \
  }
DECODE(64, 3)
DECODE(128, 2)
DECODE(256, 1)
