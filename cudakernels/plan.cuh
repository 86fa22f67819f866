// What decode_plan leaves for the decode attention. (What prefill_plan leaves is in
// prefill_items.cuh.)
#pragma once
#include "common.cuh"

__host__ __device__ inline int storedHeadDim(int headDim) { return headDim <= 64 ? 64 : headDim <= 128 ? 128 : 256; }

constexpr int MAX_GRID = 1024;
constexpr int DECODE_CONSUMERS = 128;  // threads that compute, and merge
// Every second thread block of the decode attention merges. The others end with their
// runs, so that those of the next kernel take their places and begin to read while the
// merge waits for the last runs. With all of them a launch of 46 us on an H100 takes 1.2
// us longer, one of 13 us 1.4; with every fourth the merge of many parts takes too long.
// All merge where half of them had more elements than threads.
constexpr int MERGE_STRIDE = 2;

// What one thread block of the decode attention reads: a run of the concatenated
// pages. The last `tail` of its pages belong to a head that goes on in the next
// run; they hold none of a sequence's newest page.
struct alignas(16) Run {
  int begin, pages;    // in the concatenation
  int head;            // (sequence, KV head) pair of the first page
  int tail, tailHead;  // 0 when the run ends with a head, or is all inside one
  int pairs;           // in all
  int reserved[2];
  // The entry in `heads` of the pair that is taken first: tailHead's when there is a tail.
  // It saves the wait for a load before the first page is known.
  int4 opens;
};

// A layer's decode plan. step.go computes its size.
struct DecodePlan {
  int4* head;   // elements to merge, of one thread block, log2 of threads an element, MERGE_STRIDE or 1
  Run* runs;    // [MAX_GRID]
  int4* items;  // [MAX_GRID]: cut pair, first thread block, parts
  int4* heads;  // pairs and one more: first page in the concatenation, start block, slot, position
  __device__ DecodePlan(char* p)
      : head((int4*)p), runs((Run*)(p + 64)), items((int4*)(p + 64 + 48 * MAX_GRID)), heads((int4*)(p + 64 + 64 * MAX_GRID)) {}
};
