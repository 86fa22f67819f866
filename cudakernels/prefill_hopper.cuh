// Prefill attention for compute capability 9.0a, after FlashAttention-3: one
// persistent thread block a multiprocessor, a producer warp and three consumer
// warpgroups of 64 query rows. A key tile is one page, so for a query block a tile
// is its diagonal, visible whole, or not visible. The producer walks the union of
// the three members' pages; each warpgroup computes the ones that it sees and hands
// the others back unread. S = Q K^T comes from shared memory, P stays in registers as
// the A operand of O += P V.
//
// The softmax refers to the maximum of a row's diagonal tile: a later score may
// exceed it by 69 nats without loss, because P is bfloat16 and the sums are float32.
// A warp with a row beyond that (or not a number) does not store and sends its item
// to be redone with a running maximum, at the end of the same launch. The parts of an
// item that is cut have one from the start: what they hand on is handed on once.
//
// The producer is in prefill_hopper_produce.cuh. The codes of e4m3 pages take one step
// more (prefill_hopper_e4m3.cuh): the producer brings them to a ring of their own, and
// the warps beside it leave them in the ring of the consumers as bfloat16.
#pragma once

namespace hopper {

constexpr int GROUPS = 3, STAGES = 4, EXACT = 1 << 30;
constexpr int ITEM_BYTES = 2 * sizeof(PrefillItem) + 16;  // of two items and their numbers
constexpr int RAW_STAGES = 2, CONVERTERS = 3;  // pages of codes in flight; warps that convert them
template <int HD>
constexpr int RAW_BYTES = pageBytesE4M3(HD);
// Registers a thread after reallocation: 3 * 160 + 32 <= 4 * 128. Warps that convert need
// more, and consumers can do with less.
template <bool FP8>
constexpr int CONSUMER_REGISTERS = FP8 ? 152 : 160;
template <bool FP8>
constexpr int PRODUCER_REGISTERS = 512 - 3 * CONSUMER_REGISTERS<FP8>;

__device__ __forceinline__ uint64_t descriptor(uint32_t addr, uint32_t leading, uint32_t stride) {
  return (uint64_t)((addr & 0x3FFFF) >> 4) | ((uint64_t)(leading >> 4) << 16) | ((uint64_t)(stride >> 4) << 32) | (1ull << 62);
}
__device__ __forceinline__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void waitGroups() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
// Keeps the compiler from moving reads of accumulators before a wait.
template <int N>
__device__ __forceinline__ void touch(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
}

#define F8(c, d, b) c(d[b]), c(d[b + 1]), c(d[b + 2]), c(d[b + 3]), c(d[b + 4]), c(d[b + 5]), c(d[b + 6]), c(d[b + 7])
#define F32(c, d, b) F8(c, d, b), F8(c, d, b + 8), F8(c, d, b + 16), F8(c, d, b + 24)
#define OUTPUT(x) "=f"(x)
#define INOUT(x) "+f"(x)
#define LIST32                                                                                                   \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31}"
#define LIST64                                                                                                      \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
  "%58,%59,%60,%61,%62,%63}"
#define WGMMA(shape) "wgmma.mma_async.sync.aligned." shape ".f32.bf16.bf16 "

// S (+)= Q K^T of 16 dimensions; both operands with the dimensions contiguous.
template <bool ADD>
__device__ __forceinline__ void scores(float (&s)[32], uint64_t q, uint64_t k) {
  if (ADD)
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n" WGMMA("m64n64k16") LIST32 ", %32, %33, p, 1, 1, 0, 0;\n}" : F32(INOUT, s, 0) : "l"(q), "l"(k));
  else
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n" WGMMA("m64n64k16") LIST32 ", %32, %33, p, 1, 1, 0, 0;\n}" : F32(OUTPUT, s, 0) : "l"(q), "l"(k));
}
// O += P V of 16 keys; P in registers, V with the dimensions contiguous (transposed).
__device__ __forceinline__ void values(float (&o)[64], const uint32_t* p, uint64_t v) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n" WGMMA("m64n128k16") LIST64 ", {%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}"
               : F32(INOUT, o, 0), F32(INOUT, o, 32) : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}
__device__ __forceinline__ void values(float (&o)[32], const uint32_t* p, uint64_t v) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n" WGMMA("m64n64k16") LIST32 ", {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}"
               : F32(INOUT, o, 0) : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

// The shared memory of a thread block.
template <int HD, bool FP8>
struct Shared {
  static constexpr int RAW = FP8 ? RAW_STAGES : 0;
  uint32_t q, k, v, raw, kFull, kEmpty, vFull, vEmpty, qFull, qEmpty, itemFull, itemEmpty;
  uint32_t rawFull, rawEmpty, rawWork;  // [RAW]: the last 4 bytes each
  PrefillItem* item;  // [2]
  int* index;         // [2]
  __device__ __forceinline__ Shared(uint8_t* start) {
    uint32_t base = (sharedAddress(start) + 1023) & ~1023u;
    uint8_t* g = start + (base - sharedAddress(start));
    asm volatile("mov.u32 %0, %0;" : "+r"(base));  // opaque: not to be computed again in the loops
    q = base;
    k = q + GROUPS * TILE<HD>;
    v = k + STAGES * TILE<HD>;
    raw = v + STAGES * TILE<HD>;
    const int items = (GROUPS + 2 * STAGES) * TILE<HD> + RAW * RAW_BYTES<HD>;
    item = (PrefillItem*)(g + items);
    index = (int*)(item + 2);
    kFull = base + items + ITEM_BYTES;
    kEmpty = kFull + 8 * STAGES;
    vFull = kEmpty + 8 * STAGES;
    vEmpty = vFull + 8 * STAGES;
    qFull = vEmpty + 8 * STAGES;
    qEmpty = qFull + 8 * GROUPS;
    itemFull = qEmpty + 8 * GROUPS;
    itemEmpty = itemFull + 16;
    rawFull = itemEmpty + 16;
    rawEmpty = rawFull + 8 * RAW;
    rawWork = rawEmpty + 8 * RAW;
  }
  // A full barrier counts the copy, or the warps that convert; an empty one every
  // consumer warp, or the warps that convert.
  __device__ __forceinline__ void init() {
    for (int i = 0; i < STAGES; ++i) {
      barInit(kFull + 8 * i, FP8 ? CONVERTERS : 1);
      barInit(vFull + 8 * i, FP8 ? CONVERTERS : 1);
      barInit(kEmpty + 8 * i, GROUPS * 4);
      barInit(vEmpty + 8 * i, GROUPS * 4);
    }
    for (int i = 0; i < GROUPS; ++i) {
      barInit(qFull + 8 * i, 1);
      barInit(qEmpty + 8 * i, 4);
    }
    for (int i = 0; i < 2; ++i) {
      barInit(itemFull + 8 * i, 1);
      barInit(itemEmpty + 8 * i, GROUPS * 4);
    }
    for (int i = 0; i < RAW; ++i) {
      barInit(rawFull + 8 * i, 1);
      barInit(rawEmpty + 8 * i, CONVERTERS);
    }
    barInitFence();
  }
};

// Softmax of one tile of scores against the reference maximum (scaled). search: look
// for a new maximum, though O is rescaled only when it grew by more than 2^8. Returns,
// uniformly in a warp, that O must be rescaled by a0 and a1.
template <bool DIAGONAL>
__device__ __forceinline__ bool softmax(float (&s)[32], float& m0, float& m1, float& l0, float& l1, float scale, float& a0, float& a1, bool search) {
  bool rescale = false;
  if (DIAGONAL || search) {
    float x0 = fmaxf(s[0], s[1]), x1 = fmaxf(s[2], s[3]);
#pragma unroll
    for (int i = 4; i < 32; i += 4) {
      x0 = fmaxf(x0, fmaxf(s[i], s[i + 1]));
      x1 = fmaxf(x1, fmaxf(s[i + 2], s[i + 3]));
    }
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 1)); x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 1));
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 2)); x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 2));
    x0 *= scale; x1 *= scale;
    if (DIAGONAL) {
      m0 = fmaxf(x0, -1e30f); m1 = fmaxf(x1, -1e30f);
      l0 = l1 = 0.f;
      a0 = a1 = 1.f;
    } else {
      rescale = __any_sync(~0u, x0 > m0 + 8.f || x1 > m1 + 8.f);
      if (rescale) {
        const float n0 = fmaxf(m0, x0), n1 = fmaxf(m1, x1);
        a0 = ex2(m0 - n0); a1 = ex2(m1 - n1);
        m0 = n0; m1 = n1; l0 *= a0; l1 *= a1;
      }
    }
  }
  float s0 = 0.f, s1 = 0.f;
#pragma unroll
  for (int i = 0; i < 32; i += 4) {
    s[i] = ex2(fmaf(s[i], scale, -m0)); s[i + 1] = ex2(fmaf(s[i + 1], scale, -m0));
    s[i + 2] = ex2(fmaf(s[i + 2], scale, -m1)); s[i + 3] = ex2(fmaf(s[i + 3], scale, -m1));
    l0 += s[i]; s0 += s[i + 1]; l1 += s[i + 2]; s1 += s[i + 3];
  }
  l0 += s0; l1 += s1;
  return rescale;
}

// O/l to the output: a 4 x 4 transpose in each quad of lanes, 16-byte stores.
template <int HD>
__device__ __forceinline__ void store(const float (&o)[HD / 2], float i0, float i1, bf16* out, int stride, int headDim, int row, int r0, int r1, int lane) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool ok = row + 8 * r >= r0 && row + 8 * r < r1;
    const float inv = r ? i1 : i0;
    bf16* line = out + (int64_t)(8 * r) * stride;
#pragma unroll
    for (int g = 0; g < HD / 32; ++g) {
      uint32_t u[4];
#pragma unroll
      for (int b = 0; b < 4; ++b) u[b] = pack(o[(4 * g + b) * 4 + 2 * r] * inv, o[(4 * g + b) * 4 + 2 * r + 1] * inv);
      const bool odd = lane & 1, high = lane & 2;
      uint32_t s0 = odd ? u[0] : u[1], s1 = odd ? u[2] : u[3];
      s0 = __shfl_xor_sync(~0u, s0, 1); s1 = __shfl_xor_sync(~0u, s1, 1);
      const uint32_t x0 = odd ? s0 : u[0], x1 = odd ? u[1] : s0, z0 = odd ? s1 : u[2], z1 = odd ? u[3] : s1;
      uint32_t t0 = high ? x0 : z0, t1 = high ? x1 : z1;
      t0 = __shfl_xor_sync(~0u, t0, 2); t1 = __shfl_xor_sync(~0u, t1, 2);
      const int d = (4 * g + (lane & 3)) * 8;
      if (ok && d < headDim) *(uint4*)(line + d) = high ? make_uint4(t0, t1, z0, z1) : make_uint4(x0, x1, t0, t1);
    }
  }
}

template <int HD, bool FP8>
__device__ __forceinline__ void consume(const PrefillArgs& a, const Shared<HD, FP8>& m, int group, int lane) {
  constexpr int T = TILE<HD>;
  const int row = ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2);  // my rows: row and row+8
  const uint64_t dq = descriptor(m.q + group * T, 16, 1024), dk = descriptor(m.k, 16, 1024), dv = descriptor(m.v, 8192, 1024);
  float o[HD / 2], s[32];
  uint32_t p[16];
  int ks = 0, vs = 0, slot = 0;
  uint32_t kp = 0, vp = 0, qp = 0, ip = 0;
  auto release = [&](uint32_t bar) { if (lane == 0) barArrive(bar); };
  auto kWait = [&]() { barWait(m.kFull + 8 * ks, kp); };
  auto vWait = [&]() { barWait(m.vFull + 8 * vs, vp); };
  auto kDone = [&]() { release(m.kEmpty + 8 * ks); if (++ks == STAGES) ks = 0, kp ^= 1; };
  auto vDone = [&]() { release(m.vEmpty + 8 * vs); if (++vs == STAGES) vs = 0, vp ^= 1; };
  auto multiplyK = [&]() {
    const uint64_t b = dk + (uint64_t)(ks * (T >> 4));
#pragma unroll
    for (int k = 0; k < HD / 16; ++k) {
      const int step = ((k >> 2) * 8192 + (k & 3) * 32) >> 4;
      if (k == 0) scores<false>(s, dq + step, b + step); else scores<true>(s, dq + step, b + step);
    }
    commit();
  };
  auto multiplyV = [&]() {
    const uint64_t b = dv + (uint64_t)(vs * (T >> 4));
#pragma unroll
    for (int k = 0; k < 4; ++k) values(o, p + 4 * k, b + ((k * 2048) >> 4));
    commit();
  };
  auto convert = [&]() {
#pragma unroll
    for (int k = 0; k < 16; ++k) p[k] = pack(s[2 * k], s[2 * k + 1]);
  };

  for (;;) {
    barWait(m.itemFull + 8 * slot, ip);
    const int last = __shfl_sync(~0u, m.item[slot].last, 0), pages = __shfl_sync(~0u, m.item[slot].pages, 0);
    const int index = __shfl_sync(~0u, m.index[slot], 0);
    const int4 w = m.item[slot].w[group];
    __syncwarp();
    release(m.itemEmpty + 8 * slot);
    if ((slot ^= 1) == 0) ip ^= 1;
    if (pages < 0) break;
    const int q = __shfl_sync(~0u, w.y, 0), z = __shfl_sync(~0u, w.z, 0), start = z & 0xfffff, apart = z >> 27 & 1;
    const int ahead = last - q;                               // pages before the first visible one
    const int n = q - start + 1 + apart;                      // visible pages: the window, and block 0 when apart
    const int gap = apart ? pages - 2 - (last - start) : 0;   // invisible pages between the window and block 0
    const bool exact = index & EXACT;
#pragma unroll 1
    for (int t = 0; t < ahead; ++t) { kWait(); kDone(); }
    barWait(m.qFull + 8 * group, qp);
    qp ^= 1;
    float m0, m1, l0, l1, a0, a1;
    kWait();
    fence();
    multiplyK();
#pragma unroll
    for (int i = 0; i < HD / 2; ++i) o[i] = 0.f;
    waitGroups<0>();
    touch(s);
    kDone();
    const int limit = (z >> 28 ? 2 * BLOCK : row + 1) - (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        if (j * 8 + x >= limit) s[j * 4 + x] = -INFINITY;
        if (j * 8 + x >= limit + 8) s[j * 4 + x + 2] = -INFINITY;
      }
    softmax<true>(s, m0, m1, l0, l1, a.scale, a0, a1, true);
    convert();
#pragma unroll 1
    for (int t = 0; t < ahead; ++t) { vWait(); vDone(); }
    for (int i = 1; i < n; ++i) {
      const int skip = i == n - 1 ? gap : 0;
#pragma unroll 1
      for (int t = 0; t < skip; ++t) { kWait(); kDone(); }
      kWait();
      fence();
      multiplyK();  // S = Q K(i)
      vWait();
      multiplyV();  // O += P(i-1) V(i-1); the exponentials of page i run beside it
      waitGroups<1>();
      touch(s);
      kDone();
      const bool rescale = softmax<false>(s, m0, m1, l0, l1, a.scale, a0, a1, exact);
      // A branch on the finished row sums that is never taken: without it the assembler
      // moves the wait for PV above the exponentials, and they no longer overlap.
      if (l0 + l1 < 0.f) m.item[0].table = 1;
      waitGroups<0>();
      touch(o);
      touch(s);
      vDone();
      convert();
      if (rescale) {
#pragma unroll
        for (int j = 0; j < HD / 2; j += 4) { o[j] *= a0; o[j + 1] *= a0; o[j + 2] *= a1; o[j + 3] *= a1; }
      }
#pragma unroll 1
      for (int t = 0; t < skip; ++t) { vWait(); vDone(); }
    }
    release(m.qEmpty + 8 * group);
    int r0 = w.w & 63, r1 = w.z >> 20 & 127;
    l0 += __shfl_xor_sync(~0u, l0, 1); l1 += __shfl_xor_sync(~0u, l1, 1);
    l0 += __shfl_xor_sync(~0u, l0, 2); l1 += __shfl_xor_sync(~0u, l1, 2);
    // Rows outside the sequence's chunk hold anything; they must not cause a redo.
    const bool bad0 = row >= r0 && row < r1 && !(l0 < 1.2e30f), bad1 = row + 8 >= r0 && row + 8 < r1 && !(l1 < 1.2e30f);
    if (__any_sync(~0u, bad0 || bad1) && !exact) {
      r1 = 0;
      if (lane == 0 && atomicExch(a.flag + index, 1) == 0) {
        atomicExch(a.redo + atomicAdd(a.queue + 3, 1), index + 1);
        __threadfence();
      }
    }
    vWait();
    fence();
    multiplyV();
    waitGroups<0>();
    touch(o);
    vDone();
    if (exact) {
      // Read again: values from before the loop would take registers there.
      const PrefillItem& item = a.items[index & ~EXACT];
      const int4 cut = __ldg((const int4*)&item.part);
      if (cut.y > 1 && !joinParts<HD>(a.parts, cut, (threadIdx.x >> 5) - 4, lane, o, m0, m1, l0, l1)) r1 = 0;
    }
    const int head = w.x % a.queryHeads, stride = a.queryHeads * a.headDim;
    store<HD>(o, 1.f / l0, 1.f / l1, a.out + (int64_t)((w.w >> 6) + row) * stride + head * a.headDim, stride, a.headDim, row, r0, r1, lane);
  }
}

}  // namespace hopper
