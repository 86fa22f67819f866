// What the kernels share: the structures that Go mirrors (step.go), the page
// layout, and the instructions that CUDA C++ has no name for.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

// Code for compute capability 9.0a: bulk copies, wgmma, register reallocation.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#else
#define HOPPER 0
#endif

typedef __nv_bfloat16 bf16;

constexpr int BLOCK = 64;  // tokens of a block, a page and a query tile

struct Header {
  int deltas, decodes, seqs, rows;
  int reserved[12];
};
struct Seq {
  int slot, row, len, start, rules, floor, total, tile;
};
struct Rule {
  double alpha, beta;
};
struct Row {
  int seq, pos;
};
struct TableDelta {
  int slot, head, block, page;
};
struct Adjustment {
  int id, count;
  float bias;
};
constexpr int HELD = -2;  // a count: the token is not to be chosen
struct SampleRow {
  double uniform;
  const uint32_t* mask;
  Adjustment* adjustments;
  const int* pending;
  float temperature, topP, minP;
  int topK;
  float repetition, frequency, presence;
  int maskWords, adjusted, logprobs;
};
struct TopLogprob {
  int id;
  float logprob;
};
constexpr int TOP_LOGPROBS = 20;
struct Choice {
  int id;
  float logprob;
  TopLogprob tops[TOP_LOGPROBS];
};

// Bytes of the keys (or the values) of a page; byte of element (token, d) in it.
template <int HD>
constexpr int TILE = BLOCK * HD * 2;
__host__ __device__ inline int tileOffset(int token, int d) {
  return (d >> 6) * 8192 + token * 128 + ((((d & 63) >> 3) ^ (token & 7)) << 4) + (d & 7) * 2;
}

// The first block of the span of a query in block q: runtime/plan's Layout.Start.
// Products are rounded before they are added, as there.
__host__ __device__ inline int spanStart(Rule r, int q, int floorBlocks, int totalBlocks) {
  double b;
#ifdef __CUDA_ARCH__
  if (totalBlocks > 0)
    b = floor(r.alpha / BLOCK) + floor(__dmul_rn(r.beta, (double)totalBlocks));
  else
    b = floor(__dadd_rn(r.alpha / BLOCK, __dmul_rn(r.beta, (double)max(q + 1, floorBlocks))));
#else
  volatile double share = r.beta * (double)(totalBlocks > 0 ? totalBlocks : q + 1 > floorBlocks ? q + 1 : floorBlocks);
  if (totalBlocks > 0)
    b = floor(r.alpha / BLOCK) + floor(share);
  else
    b = floor(r.alpha / BLOCK + share);
#endif
  return b >= q + 1 ? 0 : b >= 1 ? q - (int)b + 1 : q;
}

#ifdef __CUDACC__
// Programmatic dependent launch: let the next kernel start; wait for the ones before.
__device__ __forceinline__ void launchDependents() {
#if HOPPER
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void waitForPrevious() {
#if HOPPER
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ uint32_t sharedAddress(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ uint32_t pack(float lo, float hi) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}
__device__ __forceinline__ float2 unpack(uint32_t x) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}

// Matrix fragments.
__device__ __forceinline__ void ldsm4(uint32_t (&a)[4], uint32_t addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(addr) : "memory");
}
__device__ __forceinline__ void ldsm4t(uint32_t (&a)[4], uint32_t addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(addr) : "memory");
}
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Barriers in shared memory.
__device__ __forceinline__ void barInit(uint32_t bar, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barArrive(uint32_t bar) {
  asm volatile("{\n.reg .b64 t;\nmbarrier.arrive.shared.b64 t, [%0];\n}" ::"r"(bar) : "memory");
}
__device__ __forceinline__ bool barTest(uint32_t bar, int parity) {
  uint32_t r;
  asm volatile("{\n.reg .pred P;\nmbarrier.test_wait.parity.shared.b64 P, [%1], %2;\nselp.u32 %0, 1, 0, P;\n}"
               : "=r"(r) : "r"(bar), "r"(parity) : "memory");
  return r != 0;
}
__device__ __forceinline__ void barWait(uint32_t bar, int parity) {
#if HOPPER
  asm volatile("{\n.reg .pred P;\nW: mbarrier.try_wait.parity.shared::cta.b64 P, [%0], %1, 0x989680;\n@P bra D;\nbra W;\nD:\n}"
               ::"r"(bar), "r"(parity) : "memory");
#else
  while (!barTest(bar, parity)) {}
#endif
}
__device__ __forceinline__ void namedSync(int id, int threads) { asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void namedArrive(int id, int threads) { asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// Copies from global to shared memory.
__device__ __forceinline__ void copyAsync16(uint32_t dst, const void* src) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}
// The barrier counts this thread once its copies so far have landed.
__device__ __forceinline__ void copyAsyncArrive(uint32_t bar) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
}
#if HOPPER
__device__ __forceinline__ void barExpect(uint32_t bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void bulkCopy(uint32_t dst, const void* src, int bytes, uint32_t bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(dst), "l"(src), "r"(bytes), "r"(bar) : "memory");
}
__device__ __forceinline__ uint64_t evictFirst() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void bulkCopyHint(uint32_t dst, const void* src, int bytes, uint32_t bar, uint64_t policy) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;"
               ::"r"(dst), "l"(src), "r"(bytes), "r"(bar), "l"(policy) : "memory");
}
#endif

// Loads and stores of what thread blocks of one launch hand each other.
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

// Sums and maxima over a warp.
__device__ __forceinline__ float warpSum(float x) {
#pragma unroll
  for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
  return x;
}

// Exclusive prefix sum over the 1024 threads of a block; total gets the sum. warps is
// shared memory for 32 numbers.
template <class T>
__device__ __forceinline__ T blockScan(T x, T& total, T* warps) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  T sum = x;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    const T y = __shfl_up_sync(~0u, sum, d);
    if (lane >= d) sum += y;
  }
  __syncthreads();
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    T w = warps[lane];
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      const T y = __shfl_up_sync(~0u, w, d);
      if (lane >= d) w += y;
    }
    warps[lane] = w;
  }
  __syncthreads();
  total = warps[31];
  return sum - x + (warp ? warps[warp - 1] : T(0));
}
#endif  // __CUDACC__
