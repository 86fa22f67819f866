// Block-sparse causal prefill attention over pages.
//
// The work list comes from prefill_plan. On compute capability 9.0 heads of up to
// 128 dimensions run on the kernel of prefill_hopper.cuh, everything else on the
// one of prefill_mma.cuh.
#include "e4m3.cuh"
#include "prefill_parts.cuh"

struct PrefillArgs {
  const char* pool;
  const PrefillHead* head;
  const PrefillItem* items;
  const int* table;
  const char* q;
  bf16* out;
  int* queue;                // 0: next item or run, 1: thread blocks done, 2: redone items taken, 3: items to redo
  int* flag;                 // an item each: sent to be redone
  int* redo;                 // items to redo, plus 1
  char* parts;               // workspaces of parts
  int64_t maxBlocks;
  int queryHeads, headDim;
  float scale;               // times log2(e)
};

#include "prefill_mma.cuh"
#if HOPPER
#include "prefill_hopper_e4m3.cuh"

template <int HD, bool FP8>
__device__ __forceinline__ void prefillHopper(const PrefillArgs& a) {
  extern __shared__ uint8_t raw[];
  hopper::Shared<HD, FP8> m(raw);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x >> 7, 0), lane = threadIdx.x & 31;
  launchDependents();
  if (threadIdx.x == 0) m.init();
  __syncthreads();
  waitForPrevious();
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(hopper::PRODUCER_REGISTERS<FP8>));
    if (threadIdx.x < 32) {
      typename hopper::Loader<HD, FP8>::Type loader(m);
      hopper::produce<HD, FP8>(a, m, loader, lane);
    } else if constexpr (FP8) {
      hopper::convert<HD>(m, threadIdx.x - 32);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(hopper::CONSUMER_REGISTERS<FP8>));
    hopper::consume<HD, FP8>(a, m, warpgroup - 1, lane);
  }
}
#endif

__device__ __forceinline__ PrefillArgs prefillArgs(const char* pool, const char* plan, const int* table, const char* q, bf16* out, int* workspace,
                                                   int64_t maxItems, int64_t maxBlocks, int64_t queryHeads, int64_t headDim, double scale) {
  return {pool, (const PrefillHead*)plan, (const PrefillItem*)((const PrefillHead*)plan + 1), table, q, out, workspace, workspace + 16, workspace + 16 + maxItems,
          (char*)(workspace + 16 + 2 * maxItems), maxBlocks, (int)queryHeads, (int)headDim, (float)(scale * 1.4426950408889634)};
}

#define PREFILL(NAME, HD, FP8, BOUNDS, BODY)                                                                             \
  extern "C" __global__ void __launch_bounds__ BOUNDS NAME(                                                              \
      const char* pool, const char* plan, const int* table, const char* q, bf16* out, int* workspace, int64_t maxItems,  \
      int64_t maxBlocks, int64_t queryHeads, int64_t headDim, double scale) {                                            \
    BODY<HD, FP8>(prefillArgs(pool, plan, table, q, out, workspace, maxItems, maxBlocks, queryHeads, headDim, scale));   \
  }
#if HOPPER
PREFILL(prefill_attention_64, 64, false, (512, 1), prefillHopper)
PREFILL(prefill_attention_128, 128, false, (512, 1), prefillHopper)
PREFILL(prefill_attention_fp8_64, 64, true, (512, 1), prefillHopper)
PREFILL(prefill_attention_fp8_128, 128, true, (512, 1), prefillHopper)
#else
PREFILL(prefill_attention_64, 64, false, (128, 4), prefillMMA)
PREFILL(prefill_attention_128, 128, false, (128, 2), prefillMMA)
PREFILL(prefill_attention_fp8_64, 64, true, (128, 4), prefillMMA)
PREFILL(prefill_attention_fp8_128, 128, true, (128, 2), prefillMMA)
#endif
PREFILL(prefill_attention_256, 256, false, (128, 1), prefillMMA)
PREFILL(prefill_attention_fp8_256, 256, true, (128, 1), prefillMMA)
