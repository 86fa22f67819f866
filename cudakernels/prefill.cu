// Block-sparse causal prefill attention over pages.
//
// The work list comes from prefill_plan. On compute capability 9.0 heads of up to
// 128 dimensions run on the kernel of prefill_hopper.cuh, everything else on the
// one of prefill_mma.cuh.
#include "plan.cuh"

struct PrefillArgs {
  const char* pool;
  const int* count;          // items
  const PrefillItem* items;
  const int* table;
  const char* q;
  bf16* out;
  int* queue;                // 0: next item, 1: thread blocks done, 2: redone items taken, 3: items to redo
  int* flag;                 // an item each: sent to be redone
  int* redo;                 // items to redo, plus 1
  int64_t maxBlocks;
  int queryHeads, headDim;
  float scale;               // times log2(e)
};

#include "prefill_mma.cuh"
#if HOPPER
#include "prefill_hopper.cuh"
#endif

__device__ __forceinline__ PrefillArgs prefillArgs(const char* pool, const char* plan, const int* table, const char* q, bf16* out, int* workspace,
                                                   int64_t maxItems, int64_t maxBlocks, int64_t queryHeads, int64_t headDim, double scale) {
  return {pool, (const int*)plan, (const PrefillItem*)(plan + 64), table, q, out, workspace, workspace + 16, workspace + 16 + maxItems,
          maxBlocks, (int)queryHeads, (int)headDim, (float)(scale * 1.4426950408889634)};
}

#define PREFILL(HD, BOUNDS, BODY)                                                                                        \
  extern "C" __global__ void __launch_bounds__ BOUNDS prefill_attention_##HD(                                            \
      const char* pool, const char* plan, const int* table, const char* q, bf16* out, int* workspace, int64_t maxItems,  \
      int64_t maxBlocks, int64_t queryHeads, int64_t headDim, double scale) {                                            \
    BODY<HD>(prefillArgs(pool, plan, table, q, out, workspace, maxItems, maxBlocks, queryHeads, headDim, scale));        \
  }
#if HOPPER
PREFILL(64, (512, 1), prefillHopper)
PREFILL(128, (512, 1), prefillHopper)
#else
PREFILL(64, (128, 4), prefillMMA)
PREFILL(128, (128, 2), prefillMMA)
#endif
PREFILL(256, (128, 1), prefillMMA)
