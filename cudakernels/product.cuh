// Dense products of few rows, y[m][n] = x[m][k] w[n][k]^T: as fast as the weights
// can be read.
//
// A thread block, one a multiprocessor, takes an equal share of the rows of w,
// whole, so that no sum is cut between thread blocks. It goes over them in groups
// of up to 32 rows and, in a group, in tiles of 1024 bytes of every row, which
// copying warps bring to a ring in shared memory. Eight warps multiply; each takes
// every eighth slice of 64 bytes of a tile: m16n8k16 with rows of w as the rows and
// rows of x as the columns, so that 1 to 8 rows of x cost the same. They read x
// straight from the L2 cache, a tile or two ahead: bulk copies of it would queue behind
// those of the weights. At a group's end the eight sums of an element are added in
// order. So an element's sum does not depend on m, nor on which other rows there are.
//
// Weights do not depend on the kernel before: the ring is filled while that one is
// still running. And when the last tile is on its way, the beginning of the next
// product's weights is fetched to the L2 cache, so that the memory has work while
// this kernel ends and others, which are not products, run.
//
// The residual sum, the norm and the gated activation need no kernels of their own. An
// output's owner adds it to the residual stream, multiplies by the norm's weight and
// leaves the squares of its share of every row; the next product, being linear, scales
// its sums by what the squares of all thread blocks give, added in a fixed order.
#pragma once
#include "common.cuh"

typedef uint8_t e4m3;

struct ProductArgs {
  const char* w;
  const bf16* x;
  void* y;
  const float* scale;
  float* stream;
  const float* norm;
  float* squares;
  const char* next;
  int m, n, k, f32, gated, normalise, stages, nextRows, nextGated, nextTiles;
  int64_t nextRowBytes;
  float eps;
};

// Warps that multiply, and warps that copy: a warp issues a bulk copy every 25 ns, so
// one alone would just keep up with the memory and fill the ring too slowly.
constexpr int PRODUCT_WARPS = 8, PRODUCT_COPIERS = 4, PRODUCT_THREADS = 32 * (PRODUCT_WARPS + PRODUCT_COPIERS);
constexpr int PRODUCT_GROUP = 32, PRODUCT_ROW = 1024, PRODUCT_SLICE = 64;  // rows; bytes of a row in a tile, and in a slice
// Rows in shared memory are padded so that the eight threads of a phase of a 16-byte
// access, four of each of two rows, meet all banks once.
constexpr int PRODUCT_PITCH = PRODUCT_ROW + 64, PRODUCT_TILE = PRODUCT_GROUP * PRODUCT_PITCH;
constexpr int PRODUCT_SUM_PITCH = PRODUCT_GROUP + 4;  // floats of a column of a group's sums

struct ProductBarriers {
  static constexpr int MOST = 8;  // stages
  uint64_t full[MOST], empty[MOST];
};

// The tiles of a matrix that a thread block takes, group by group. Thread blocks begin
// with different columns, so that they do not all want the same part of x at a time. A
// gated output has two rows of weights, so its groups have half as many outputs: gates
// in rows 0 to 15 of the tiles, ups in the others.
struct ProductTiles {
  int n, gated, begin, count, groups, chunks, start;
  int64_t line;  // bytes of a row
  int group = 0, chunk;
  __device__ ProductTiles(int n, int gated, int64_t line) : n(n), gated(gated), line(line) {
    const int block = blockIdx.x, grid = gridDim.x, most = gated ? PRODUCT_GROUP / 2 : PRODUCT_GROUP;
    begin = (int)((int64_t)n * block / grid);
    count = (int)((int64_t)n * (block + 1) / grid) - begin;
    groups = (count + most - 1) / most;
    chunks = (int)((line + PRODUCT_ROW - 1) / PRODUCT_ROW);
    start = chunk = block % chunks;
  }
  __device__ bool done() const { return group == groups; }
  __device__ void next() {
    if (++chunk == chunks) chunk = 0;
    if (chunk == start) ++group;
  }
  __device__ bool last() const { return (chunk + 1 == chunks ? 0 : chunk + 1) == start; }  // of its group
  __device__ int first() const { return begin + count * group / groups; }                   // output
  __device__ int outputs() const { return begin + count * (group + 1) / groups - first(); }
  __device__ int bytes() const { return min(PRODUCT_ROW, (int)(line - chunk * PRODUCT_ROW)); }  // of each row
  // Where row r begins in w; null if the tile has no such row.
  __device__ const char* row(const char* w, int r) const {
    const int i = gated ? r % (PRODUCT_GROUP / 2) : r;
    if (i >= outputs()) return nullptr;
    return w + (first() + i + (i < r ? n : 0)) * line + chunk * PRODUCT_ROW;
  }
};

__device__ __forceinline__ void prefetchL2(const char* p, int bytes) {
#if HOPPER
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#else
  for (int i = 0; i < bytes; i += 128) asm volatile("prefetch.global.L2 [%0];" ::"l"(p + i));
#endif
}

__device__ __forceinline__ void productCopy(const ProductArgs& a, ProductTiles t, uint32_t ring, ProductBarriers& bars, int copier, int lane) {
  const uint32_t full = sharedAddress(bars.full), empty = sharedAddress(bars.empty);
  const int mine = copier + PRODUCT_COPIERS * lane;  // my row of a tile, if there is one
#if HOPPER
  const uint64_t policy = evictFirst();
#endif
  for (int stage = 0, phase = 1; !t.done(); t.next()) {
    const int bytes = t.bytes();
    const uint32_t dst = ring + stage * PRODUCT_TILE, bar = full + 8 * stage;
    barWait(empty + 8 * stage, phase);
#if HOPPER
    if (copier == 0 && lane == 0) barExpect(bar, (t.gated ? 2 : 1) * t.outputs() * bytes);
    if (mine < PRODUCT_GROUP)
      if (const char* src = t.row(a.w, mine)) bulkCopyHint(dst + mine * PRODUCT_PITCH, src, bytes, bar, policy);
#else
    for (int r = copier; r < PRODUCT_GROUP; r += PRODUCT_COPIERS)
      if (const char* src = t.row(a.w, r))
        for (int i = 16 * lane; i < bytes; i += 512) copyAsync16(dst + r * PRODUCT_PITCH + i, src + i);
    copyAsyncArrive(bar);
#endif
    if (++stage == a.stages) stage = 0, phase ^= 1;
  }
  if (a.nextTiles > 0 && mine < PRODUCT_GROUP) {
    ProductTiles n(a.nextRows, a.nextGated, a.nextRowBytes);
    for (int i = 0; i < a.nextTiles && !n.done(); ++i, n.next())
      if (const char* src = n.row(a.next, mine)) prefetchL2(src, n.bytes());
  }
#if !HOPPER
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// The columns of x that go with a thread's 16 bytes of a row of w, of 8 rows of x
// (a row to four threads): 16 bytes for bfloat16 weights, 32 for e4m3 ones.
template <class E>
struct ProductX {
  uint4 v[2 / sizeof(E)];
  __device__ __forceinline__ void load(const bf16* p) {
#pragma unroll
    for (int i = 0; i < 2 / (int)sizeof(E); ++i) v[i] = ((const uint4*)p)[i];
  }
};

// A slice of 32 rows of w, a thread's 16 bytes of four rows. Which k is which column
// of a fragment is free as long as w and x agree.
template <int NT>
__device__ __forceinline__ void productSlice(float (&c)[2][NT][4], const uint4 (&w)[4], const ProductX<bf16> (&x)[NT]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint4 up = w[2 * i], down = w[2 * i + 1];
    const uint32_t lo[4] = {up.x, down.x, up.y, down.y}, hi[4] = {up.z, down.z, up.w, down.w};
#pragma unroll
    for (int j = 0; j < NT; ++j) {
      mma(c[i][j], lo, x[j].v[0].x, x[j].v[0].y);
      mma(c[i][j], hi, x[j].v[0].z, x[j].v[0].w);
    }
  }
}

// Two of the four e4m3 numbers of p as bfloat16: 0 and 1 with LOW, 2 and 3 with HIGH.
// The selectors repeat a byte's sign above it. Moved to the exponent's lower end, the
// numbers are 2^-120 of their value, subnormal ones too, and the product with 2^120 is
// exact. The two codes that are no numbers come out as +-480.
constexpr uint32_t LOW = 0x9180, HIGH = 0xb3a2;
template <uint32_t PAIR>
__device__ __forceinline__ uint32_t productWiden(uint32_t p) {
  uint32_t x, y;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(x) : "r"(p), "n"(PAIR));
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(x << 4 & 0x87f087f0u), "r"(0x7b807b80u), "r"(0x80008000u));
  return y;
}

template <int NT>
__device__ __forceinline__ void productSlice(float (&c)[2][NT][4], const uint4 (&w)[4], const ProductX<e4m3> (&x)[NT]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t up[4] = {w[2 * i].x, w[2 * i].y, w[2 * i].z, w[2 * i].w}, down[4] = {w[2 * i + 1].x, w[2 * i + 1].y, w[2 * i + 1].z, w[2 * i + 1].w};
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const uint32_t f[4] = {productWiden<LOW>(up[q]), productWiden<LOW>(down[q]), productWiden<HIGH>(up[q]), productWiden<HIGH>(down[q])};
#pragma unroll
      for (int j = 0; j < NT; ++j) {
        const uint4 b = x[j].v[q >> 1];
        mma(c[i][j], f, q & 1 ? b.z : b.x, q & 1 ? b.w : b.y);
      }
    }
  }
}

// What a warp needs to finish outputs. It writes those of every eighth column of x, a
// lane one of a group's. All is asked for long before it is used.
template <int NT>
struct ProductFinish {
  static constexpr int PARTS = 6;  // for up to 192 thread blocks
  float parts[NT][PARTS];          // of the sums of squares of a column
  float stream[NT], norm, scale[2];
  float squares[NT];  // of the stream's new elements

  // The parts that the thread blocks of an earlier product left.
  __device__ __forceinline__ void begin(const ProductArgs& a, int warp, int lane) {
#pragma unroll
    for (int j = 0; j < NT; ++j) {
      const int col = warp + PRODUCT_WARPS * j;
      squares[j] = 0;
#pragma unroll
      for (int i = 0; i < PARTS; ++i) {
        const int block = lane + 32 * i;
        parts[j][i] = a.normalise && col < a.m && block < gridDim.x ? a.squares[col * gridDim.x + block] : 0.f;
      }
    }
  }
  // The factor of a column's norm; the parts are added in a fixed order.
  __device__ __forceinline__ float factor(const ProductArgs& a, int j) const {
    if (!a.normalise) return 1;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < PARTS; ++i) sum += parts[j][i];
    return rsqrtf(warpSum(sum) / (float)a.k + a.eps);
  }
  // What goes with the outputs of a group.
  __device__ __forceinline__ void load(const ProductArgs& a, const ProductTiles& t, int warp, int lane) {
    if (t.done() || lane >= t.outputs()) return;
    const int n = t.first() + lane;
    scale[0] = scale[1] = 1;
    if (a.scale) scale[0] = __ldg(a.scale + n);
    if (a.scale && a.gated) scale[1] = __ldg(a.scale + a.n + n);
    if (!a.stream) return;
    norm = __ldg(a.norm + n);
#pragma unroll
    for (int j = 0; j < NT; ++j)
      if (warp + PRODUCT_WARPS * j < a.m) stream[j] = a.stream[(int64_t)(warp + PRODUCT_WARPS * j) * a.n + n];
  }
};

// Adds the warps' sums of a group and writes its outputs.
template <int NT>
__device__ __forceinline__ void productFinish(const ProductArgs& a, const float (&c)[2][NT][4], ProductFinish<NT>& f, const ProductTiles& t, float* sums, int warp, int lane) {
  constexpr int SUMS = 8 * NT * PRODUCT_SUM_PITCH;
  namedSync(1, 32 * PRODUCT_WARPS);  // the sums of the group before have been read
  float* const mine = sums + warp * SUMS + 2 * (lane & 3) * PRODUCT_SUM_PITCH + (lane >> 2);
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < NT; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) mine[(8 * j + (e & 1)) * PRODUCT_SUM_PITCH + 16 * i + 8 * (e >> 1)] = c[i][j][e];
  namedSync(1, 32 * PRODUCT_WARPS);
  const bool active = lane < t.outputs();
  const int n = t.first() + lane;
#pragma unroll
  for (int j = 0; j < NT; ++j) {
    const int col = warp + PRODUCT_WARPS * j;
    if (col >= a.m) continue;
    const float factor = f.factor(a, j);
    float square = 0;
    if (active) {
      auto sum = [&](int half) {
        float v = 0;
#pragma unroll
        for (int s = 0; s < PRODUCT_WARPS; ++s) v += sums[s * SUMS + col * PRODUCT_SUM_PITCH + lane + half * (PRODUCT_GROUP / 2)];
        return v * factor * f.scale[half];
      };
      const int64_t at = (int64_t)col * a.n + n;
      float v = sum(0);
      if (a.gated) v = v / (1.f + __expf(-v)) * sum(1);
      if (a.stream) {
        v += f.stream[j];
        a.stream[at] = v;
        square = v * v;
        v *= f.norm;
      }
      if (a.f32)
        ((float*)a.y)[at] = v;
      else
        ((bf16*)a.y)[at] = __float2bfloat16(v);
    }
    if (a.stream) f.squares[j] += warpSum(square);
  }
}

template <class E, int NT>
__device__ __forceinline__ void productMultiply(const ProductArgs& a, ProductTiles t, const char* ring, float* sums, ProductBarriers& bars, int warp, int lane) {
  constexpr int SLICES = PRODUCT_ROW / PRODUCT_SLICE / PRODUCT_WARPS;  // of a tile, for a warp
  constexpr int COLUMNS = PRODUCT_SLICE / sizeof(E), K = PRODUCT_ROW / sizeof(E);  // of a slice, of a tile
  constexpr int AHEAD = NT == 1 ? 2 : 1;  // tiles whose x is on its way; registers allow no more
  const uint32_t full = sharedAddress(bars.full), empty = sharedAddress(bars.empty);
  const int row = lane >> 2, quad = lane & 3;
  const char* const w = ring + row * PRODUCT_PITCH + warp * PRODUCT_SLICE + quad * 16;
  const bf16* x[NT];
#pragma unroll
  for (int j = 0; j < NT; ++j) x[j] = a.x + (int64_t)min(8 * j + row, a.m - 1) * a.k + warp * COLUMNS + quad * (COLUMNS / 4);  // nobody looks at columns beyond m
  const int mine = a.k - warp * COLUMNS;  // columns from the warp's first on
  ProductX<E> now[SLICES][NT], then[AHEAD][SLICES][NT];
  auto load = [&](ProductX<E> (&to)[SLICES][NT], int column) {
#pragma unroll
    for (int s = 0; s < SLICES; ++s)
      if (column + s * PRODUCT_WARPS * COLUMNS < mine)
#pragma unroll
        for (int j = 0; j < NT; ++j) to[s][j].load(x[j] + column + s * PRODUCT_WARPS * COLUMNS);
  };
  float c[2][NT][4] = {};
  int later = t.chunk;
  auto advance = [&]() { later = later + 1 == t.chunks ? 0 : later + 1; };
#pragma unroll
  for (int i = 0; i < AHEAD; ++i, advance()) load(then[i], later * K);
  ProductFinish<NT> f;
  f.begin(a, warp, lane);
  f.load(a, t, warp, lane);
  for (int stage = 0, phase = 0; !t.done(); t.next(), advance()) {
#pragma unroll
    for (int s = 0; s < SLICES; ++s)
#pragma unroll
      for (int j = 0; j < NT; ++j) {
        now[s][j] = then[0][s][j];
#pragma unroll
        for (int i = 1; i < AHEAD; ++i) then[i - 1][s][j] = then[i][s][j];
      }
    load(then[AHEAD - 1], later * K);
    const int column = t.chunk * K;
    barWait(full + 8 * stage, phase);
    const char* const tile = w + stage * PRODUCT_TILE;
#pragma unroll
    for (int s = 0; s < SLICES; ++s) {
      if (column + s * PRODUCT_WARPS * COLUMNS >= mine) continue;
      uint4 v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = *(const uint4*)(tile + 8 * i * PRODUCT_PITCH + s * PRODUCT_WARPS * PRODUCT_SLICE);
      productSlice<NT>(c, v, now[s]);
    }
    __syncwarp();
    if (lane == 0) barArrive(empty + 8 * stage);
    if (++stage == a.stages) stage = 0, phase ^= 1;
    if (t.last()) {
      productFinish<NT>(a, c, f, t, sums, warp, lane);
      ProductTiles following = t;
      following.next();
      f.load(a, following, warp, lane);
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < NT; ++j) c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0;
    }
  }
  if (a.stream && lane == 0)
#pragma unroll
    for (int j = 0; j < NT; ++j)
      if (warp + PRODUCT_WARPS * j < a.m) a.squares[(warp + PRODUCT_WARPS * j) * gridDim.x + blockIdx.x] = f.squares[j];
}

template <class E, int NT>
__device__ __forceinline__ void product(const ProductArgs& a) {
  extern __shared__ __align__(1024) uint8_t shared[];
  char* const ring = (char*)shared;
  float* const sums = (float*)(ring + a.stages * PRODUCT_TILE);
  ProductBarriers& bars = *(ProductBarriers*)(sums + PRODUCT_WARPS * 8 * NT * PRODUCT_SUM_PITCH);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  launchDependents();
  if (threadIdx.x < a.stages) {
    barInit(sharedAddress(bars.full + threadIdx.x), HOPPER ? 1 : 32 * PRODUCT_COPIERS);
    barInit(sharedAddress(bars.empty + threadIdx.x), PRODUCT_WARPS);
#if HOPPER
    barInitFence();
#endif
  }
  __syncthreads();
  const ProductTiles tiles(a.n, a.gated, (int64_t)a.k * sizeof(E));
  if (warp >= PRODUCT_WARPS) {
    productCopy(a, tiles, sharedAddress(ring), bars, warp - PRODUCT_WARPS, lane);
  } else {
    waitForPrevious();
    productMultiply<E, NT>(a, tiles, ring, sums, bars, warp, lane);
  }
}
