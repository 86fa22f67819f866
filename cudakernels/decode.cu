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
// written. Every second thread block (see MERGE_STRIDE), once it is out of pages, polls for
// its share of the merge: no counter, no fence, no atomic, and no thread block that merges
// alone. The others end, and those of the next launch read their first pages meanwhile.
#include "decode_merge.cuh"
#include "decode_pages.cuh"

// Bits of a page's description, above its tokens (1 to 64).
constexpr uint32_t NEWEST = 256, FIRST = 512, LAST = 1024, END = 2048;
constexpr int THREADS = CONSUMERS + 32;

// Shared memory behind the ring.
template <class Pages>
struct Fixed {
  static constexpr int HD = Pages::HEAD_DIM, RING = Pages::RING;
  static constexpr int SCORES = 72;           // padded row of S
  static constexpr int QUERY = HD * 2 + 16;   // bytes of a padded query
  uint64_t full[2 * RING], empty[2 * RING], query[RING];  // keys, values, keys, values
  uint4 meta[RING];                           // description, pair, workspace slot
  float4 scales[RING];                        // of the keys, of the values; padding of a page
  float scores[2][8][SCORES];
  uint8_t queries[RING][8 * QUERY];
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
  int first = run.opens.x, start = run.opens.y, slot = run.opens.z, pos = run.opens.w, k = 0;
  auto pagesOf = [&]() { return pos / BLOCK - start + 1 + (start > 0); };
  if (at > 0 || !__all_sync(~0u, lane >= b.count || g < first + pagesOf())) {
    // Every pair has a page, so 32 pages lie in 32 pairs.
    const int4 h = __ldg(plan.heads + min(head + lane, run.pairs));
#pragma unroll
    for (int d = 16; d; d >>= 1)
      if (__shfl_sync(~0u, h.x, k + d) <= g) k += d;
    first = __shfl_sync(~0u, h.x, k), start = __shfl_sync(~0u, h.y, k), slot = __shfl_sync(~0u, h.z, k), pos = __shfl_sync(~0u, h.w, k);
  }
  const int i = g - first, pages = pagesOf(), end = run.begin + run.pages;
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

template <class Pages>
__device__ __forceinline__ void produce(const DecodeArgs& a, const DecodePlan& plan, const Run& run, Fixed<Pages>& f, uint32_t ring, int lane) {
  constexpr int HD = Pages::HEAD_DIM, TILE = Pages::TILE;
  const int pages = a.stages >> 1, G = a.group;
  const uint32_t full = sharedAddress(f.full), empty = sharedAddress(f.empty), query = sharedAddress(f.query), queries = sharedAddress(f.queries);
  constexpr int QB = HD * 2, COLUMNS = Pages::COLUMNS, COLUMN = TILE / COLUMNS, ROW = Pages::ROW;
#if HOPPER
  constexpr int SCALES = Pages::SCALED ? 16 : 0;
  const uint64_t policy = evictFirst();
#endif
  auto issueQuery = [&](int at, int pair) {
#if HOPPER
    if (lane == 0) barExpect(query + 8 * at, G * QB);
    __syncwarp();
    if (lane < G) bulkCopy(queries + at * 8 * Fixed<Pages>::QUERY + lane * Fixed<Pages>::QUERY, a.q + ((int64_t)pair * G + lane) * HD, QB, query + 8 * at);
#else
    for (int i = lane; i < G * (QB / 16); i += 32) {
      const int r = i / (QB / 16), c = i % (QB / 16);
      copyAsync16(queries + at * 8 * Fixed<Pages>::QUERY + r * Fixed<Pages>::QUERY + c * 16, (const char*)(a.q + ((int64_t)pair * G + r) * HD) + c * 16);
    }
    copyAsyncArrive(query + 8 * at);
#endif
  };
  // Copies the rows of a tile that hold tokens, rounded up to 16.
  auto issueTile = [&](uint32_t dst, const char* src, int rows, int extra, uint32_t bar) {
#if HOPPER
    if (lane == 0) {
      barExpect(bar, rows * COLUMNS * ROW + extra);
      if (rows == BLOCK) {
        bulkCopyHint(dst, src, TILE, bar, policy);
      } else {
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) bulkCopyHint(dst + c * COLUMN, src + c * COLUMN, rows * ROW, bar, policy);
      }
    }
#else
    for (int c = 0; c < COLUMNS; ++c)
      for (int i = lane; i < rows * (ROW / 16); i += 32) copyAsync16(dst + c * COLUMN + i * 16, src + c * COLUMN + i * 16);
    copyAsyncArrive(bar);
#endif
  };
  // A page's scales travel with its keys.
  auto issueScales = [&](int at, const char* page) {
    const uint32_t dst = sharedAddress(f.scales + at);
#if HOPPER
    if (lane == 0) bulkCopy(dst, page + 2 * TILE, SCALES, full + 16 * at);
#else
    if (lane == 0) copyAsync16(dst, page + 2 * TILE);
#endif
  };

  int at = 0, phase = 1;
  bool waited = false;
  uint32_t pending = 0;           // ring places whose query must wait
  int pendingPair[Pages::RING];
  auto wait = [&]() {
    waitForPrevious();
    waited = true;
#pragma unroll
    for (int j = 0; j < Pages::RING; ++j)
      if (pending >> j & 1) issueQuery(j, pendingPair[j]);
  };
  Batch b = lookUp(a, plan, run, 0, run.head, lane), next{};
  for (int i = 0, k = 0; i < run.pages; ++i) {
    const int page = __shfl_sync(~0u, b.page, k), pair = __shfl_sync(~0u, b.pair, k), slot = __shfl_sync(~0u, b.slot, k);
    const uint32_t bits = __shfl_sync(~0u, b.bits, k);
    // Beyond the first round of the ring the consumers have passed their wait anyway; a
    // newest page may still be written by the kernel before.
    if (!waited && ((bits & NEWEST) || i >= pages)) wait();
#if HOPPER
    // All thread blocks begin at once: the first keys of all go before second pages.
    if (i == 1 && pages > 1) barWait(full, 0);
#endif
    const int rows = ((bits & 255) + 15) & ~15;
    const char* src = a.pool + (int64_t)page * Pages::PAGE;
    const uint32_t dst = ring + at * 2 * TILE;
    if (!HOPPER || lane == 0) barWait(empty + 16 * at, phase);
    if (lane == 0) {
      f.meta[at] = make_uint4(i == run.pages - 1 ? bits | END : bits, pair, slot, 0);
#if !HOPPER
      barArrive(full + 16 * at);  // orders the description, which is no asynchronous copy
#endif
    }
    __syncwarp();
#if HOPPER
    issueTile(dst, src, rows, SCALES, full + 16 * at);
    if (Pages::SCALED) issueScales(at, src);
#else
    if (Pages::SCALED) issueScales(at, src);  // the arrival after the tile counts it
    issueTile(dst, src, rows, 0, full + 16 * at);
#endif
    if (!HOPPER || lane == 0) barWait(empty + 16 * at + 8, phase);
    issueTile(dst + TILE, src + TILE, rows, 0, full + 16 * at + 8);
    __syncwarp();
    if (bits & FIRST) {  // the query's place is free when the values' is
      if (waited) {
        issueQuery(at, pair);
      } else {
        pending |= 1u << at;
#pragma unroll
        for (int j = 0; j < Pages::RING; ++j)
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

template <class Pages>
__device__ __forceinline__ void consume(const DecodeArgs& a, Fixed<Pages>& f, uint32_t ring, int w, int lane) {
  constexpr int HD = Pages::HEAD_DIM, SP = Fixed<Pages>::SCORES, SLICE = HD / 4, MT = Pages::MT;
  const int G = a.group, pages = a.stages >> 1, row = lane & 7, quad = lane & 3;
  const uint32_t full = sharedAddress(f.full), empty = sharedAddress(f.empty), query = sharedAddress(f.query);
  Pages tile(ring, w, lane);
  const int n = lane >> 2, h0 = quad * 2;  // my head as a column of P; my two heads as columns of O^T
  // Columns beyond G repeat a head; nobody reads them.
  const uint32_t qBase = sharedAddress(f.queries) + (row % G) * Fixed<Pages>::QUERY + (lane >> 3) * 16;
  // S: written as [head h0, h0+1][token 16w + lane/4 (+8)], read as [head n][tokens 8t + 2*quad (+1)].
  float* const sWrite = &f.scores[0][h0][16 * w + n];
  const float* const sRead = &f.scores[0][n][2 * quad];

  int at = 0, phase = 0, buffer = 0;
  uint32_t queryPhase = 0;
  float m = -INFINITY, l = 0, o[2][MT][4];
  typename Pages::Query q;
  uint4 next;
  float2 nextScales;  // of keys and values
  float unit = 1;     // of O: the scale of the last page's values
  auto loadK = [&](int s) {  // the keys' fragments and the page's description; frees the keys
    next = f.meta[s];
    if (Pages::SCALED) nextScales = *(const float2*)(f.scales + s);
    tile.loadKeys(s);
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
        ldsm4(x, qBase + at * 8 * Fixed<Pages>::QUERY + k * 64);
        q[2 * k][0] = x[0]; q[2 * k][1] = x[1]; q[2 * k + 1][0] = x[2]; q[2 * k + 1][1] = x[3];
      }
      Pages::prepare(q);
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
    tile.scores(c, q);
    float keyScale = a.scale, valueRatio = 1;
    if (Pages::SCALED) {
      keyScale *= nextScales.x * HALF_UNIT;
      valueRatio = unit * inverse(nextScales.y);
      unit = nextScales.y;
    }
    auto loadV = [&]() {  // the values' fragments; frees the values
      tile.loadValues(at);
      __syncwarp();
      if (lane == 0) barArrive(empty + 16 * at + 8);
    };
    const bool haveV = ready(full + 16 * at + 8, phase);
    if (haveV) loadV();
#pragma unroll
    for (int k = 0; k < 4; ++k) c[0][k] = ((c[0][k] + c[1][k]) + (c[2][k] + c[3][k])) * keyScale;
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
    float s0 = __shfl_sync(~0u, scale, quad * 8), s1 = __shfl_sync(~0u, scale, quad * 8 + 4);
    if (Pages::SCALED) s0 *= valueRatio, s1 *= valueRatio;
    uint32_t p[8];
    float ls[4] = {0, 0, 0, 0};
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const float px = ex2(v[t].x - mn), py = ex2(v[t].y - mn);
      ls[t & 3] += px + py;
      p[t] = Pages::probabilities(px, py);
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
      if (16 * t < tokens) tile.output(o[t & 1], t, p[2 * t], p[2 * t + 1]);

    if (bits & LAST) {  // the end of a pair in this run: my dimensions are final
      l += __shfl_xor_sync(~0u, l, 1);
      l += __shfl_xor_sync(~0u, l, 2);
      if (Pages::SCALED) {
#pragma unroll
        for (int i = 0; i < MT; ++i)
#pragma unroll
          for (int k = 0; k < 4; ++k) o[0][i][k] *= unit * HALF_UNIT, o[1][i][k] *= unit * HALF_UNIT;
      }
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

template <class Pages>
__device__ __forceinline__ void decode(const DecodeArgs& a) {
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr int HD = Pages::HEAD_DIM;
  Fixed<Pages>& f = *(Fixed<Pages>*)(shared + a.stages * Pages::TILE);
  const uint32_t ring = sharedAddress(shared);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const DecodePlan plan((char*)a.plan);
  launchDependents();

  if (warp == CONSUMERS / 32) {
    const int4* words = (const int4*)(plan.runs + blockIdx.x);
    const int4 r0 = __ldg(words), r1 = __ldg(words + 1);
    const Run run{r0.x, r0.y, r0.z, r0.w, r1.x, r1.y, {0, 0}, __ldg(words + 2)};
    if (lane < 2 * Pages::RING) {
      barInit(sharedAddress(f.full + lane), HOPPER ? 1 : lane & 1 ? 32 : 33);
      barInit(sharedAddress(f.empty + lane), CONSUMERS / 32);
      if (lane < Pages::RING) barInit(sharedAddress(f.query + lane), HOPPER ? 1 : 32);
#if HOPPER
      barInitFence();
#endif
    }
    __syncwarp();
    namedArrive(1, THREADS);
    if (run.pages > 0)
      produce<Pages>(a, plan, run, f, ring, lane);
    else
      waitForPrevious();
    return;
  }

  const int pages = __ldg(&plan.runs[blockIdx.x].pages);
  const int4 head = __ldg(plan.head);
  const int2 share = mergeShare(head);
  const int e = share.x + (threadIdx.x >> head.z);
  const int4 item = e < share.y ? __ldg(plan.items + e / (a.group * (HD / 4))) : make_int4(0, 0, 0, 0);
  namedSync(1, THREADS);
  waitForPrevious();
  const int words = 2 * gridDim.x * a.group * (HD + 2) / 4;
  for (int i = blockIdx.x * CONSUMERS + threadIdx.x; i < words; i += gridDim.x * CONSUMERS)
    ((uint4*)a.clear)[i] = make_uint4(NOT_READY, NOT_READY, NOT_READY, NOT_READY);
  if (pages > 0) consume<Pages>(a, f, ring, warp, lane);
  mergeParts<HD>(a, plan, head, share, item, e);
}

#define DECODE(NAME, PAGES, PER_SM)                                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS, PER_SM) NAME(                                                  \
      const char* pool, const char* plan, const int* table, const bf16* q, bf16* out, float* workspace, float* clear,  \
      int64_t layer, int64_t kvHeads, int64_t heads, int64_t maxBlocks, int64_t group, int64_t headDim, int64_t stages, \
      double scale) {                                                                                                  \
    decode<PAGES>({pool, plan, table, q, out, workspace, clear, (int)layer, (int)kvHeads, (int)heads, (int)group,      \
                   (int)headDim, (int)stages, maxBlocks, (float)(scale * 1.4426950408889634)});                        \
  }
DECODE(decode_attention_64, PagesBF16<64>, 3)
DECODE(decode_attention_128, PagesBF16<128>, 2)
DECODE(decode_attention_256, PagesBF16<256>, 1)
DECODE(decode_attention_fp8_64, PagesE4M3<64>, 4)
DECODE(decode_attention_fp8_128, PagesE4M3<128>, 3)
DECODE(decode_attention_fp8_256, PagesE4M3<256>, 2)
