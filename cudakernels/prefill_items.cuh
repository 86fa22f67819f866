// The work items of the prefill attention, and how prefill_plan cuts them where they
// are too few for the multiprocessors.
#pragma once
#include "plan.cuh"

// The head of a layer's prefill plan; the items follow. Thread blocks take one item
// after the other, or one run of them, so that each has the same number of pages.
constexpr int MAX_RUNS = 1008;
struct alignas(16) PrefillHead {
  int items, runs;  // no runs: items one by one
  int reserved[14];
  int ends[MAX_RUNS];  // of run i: its items are those from ends[i-1] to ends[i]-1
};

// Three pairs of one KV head that walk one list of pages: blocks last, last-1, ...
// (`window` of them), then block 0 when it lies apart. Of an item that is cut, one
// part of that list.
struct alignas(16) PrefillItem {
  int table;   // slot * heads + head
  int last;    // largest block
  int window;  // blocks in the union of the windows
  int pages;   // window, and 1 when block 0 lies apart; -1 ends the queue
  // x: query tile * query heads + query head; y: largest visible block; z: smallest visible
  // block of the window | rows end << 20 | block 0 visible and apart << 27 | all keys visible
  // (no diagonal block) << 28; w: output row of the tile's row 0 << 6 | first row (the output
  // row may be negative)
  int4 w[3];
  // Parts in all, 1 for a whole item. Part 0 has the diagonal blocks. The parts of an item
  // have workspaces in a row, of which `slot` is the first.
  int part, parts, slot;
  int reserved;
};

// Pages of a part at least. The fewer, the more even are the runs; but the first part
// holds the diagonal blocks and the last one the ends of the windows of all members (they
// are at most 2 blocks apart) and block 0, and between them all see all pages.
constexpr int MIN_PART = 4;
constexpr int MIN_RUN = 8;  // pages of a run: fewer are not worth the start
constexpr int MAX_CUT_ITEMS = 1024;  // items of a layer that are cut at most: a thread each

// Pages of a run when the items of a layer, `work` pages in all, are cut into equal runs,
// one a multiprocessor; 0 for items that stay whole. units is how many turns of a
// multiprocessor an item takes: 3 where its members are computed one after the other.
__host__ __device__ inline int prefillRun(int items, int shortest, int longest, long long work, int sms, int units) {
  if (items == 0 || items * units >= 2 * sms || items > MAX_CUT_ITEMS) return 0;
  const long long even = (work + sms - 1) / sms, run = even > MIN_RUN ? even : MIN_RUN;
  // Whole items take at least as long as the longest one, and as the shortest ones where
  // a multiprocessor takes several.
  const long long several = (long long)((items * units + sms - 1) / sms) * shortest, whole = several > longest ? several : longest;
  // Parts keep a running maximum, which costs an eighth of the time of a page. To start,
  // to store and to merge the parts of a run takes as long as 24 pages of three members,
  // or 8 of one.
  const int start = units == 1 ? 24 : 8;
  return 8 * whole > units * (9 * run + 8 * start) ? (int)run : 0;
}

// The cuts of one item, `pages` pages from `begin` on in the concatenation of all: at
// multiples of run, as far as they leave MIN_PART pages on both sides.
struct PrefillCuts {
  int begin, run, first, count;  // first: the multiple of run of the first cut
  __host__ __device__ PrefillCuts() : begin(0), run(0), first(1), count(0) {}
  __host__ __device__ PrefillCuts(int begin, int pages, int run) : begin(begin), run(run), first((begin + MIN_PART + run - 1) / run), count(0) {
    const int last = (begin + pages - MIN_PART) / run;
    if (last >= first) count = last - first + 1;
  }
  // Page of the item at which a part begins.
  __host__ __device__ int from(int part) const { return part == 0 ? 0 : (first + part - 1) * run - begin; }
  // The run that a part lies in, but for less than MIN_PART pages.
  __host__ __device__ int runOf(int part) const { return first - 1 + part; }
  // Every cut in the concatenation owns two workspaces; an item has one part more than it
  // has cuts.
  __host__ __device__ int slot() const { return count ? 2 * (first - 1) : 0; }
};

// The items of one (sequence, KV head) pair.
struct PrefillPair {
  Seq seq;
  Rule rule;
  int table, head, group, heads;  // of the item; first query head, query heads a KV head and in all
  int first, members;             // first query block; (query block, query head) pairs
  __host__ __device__ PrefillPair(const Seq& s, const Rule& rule, int table, int head, int group, int heads)
      : seq(s), rule(rule), table(table), head(head), group(group), heads(heads), first(s.start / BLOCK),
        members(((s.start + s.len - 1) / BLOCK - first + 1) * group) {}
  __host__ __device__ int items() const { return (members + 2) / 3; }
  __host__ __device__ int highest(int k) const { return first + (3 * k + 2 < members ? 3 * k + 2 : members - 1) / group; }
  __host__ __device__ int start(int q) const { return spanStart(rule, q, seq.floor, seq.total); }
  // Blocks in the union of the windows of item k, and its pages.
  __host__ __device__ int window(int k) const { return highest(k) - start(first + 3 * k / group) + 1; }
  __host__ __device__ int pages(int k) const {
    const int n = window(k);
    return n + (n <= highest(k));
  }
  // Part `part` of item k: its pages from..to-1.
  __host__ __device__ PrefillItem item(int k, const PrefillCuts& cuts, int part, int from, int to) const {
    const bool final = part == cuts.count;
    const int blocks = window(k);
    PrefillItem x;
    x.table = table;
    x.last = highest(k) - from;
    x.window = (to < blocks ? to : blocks) - from;
    x.pages = to - from;
    x.part = part;
    x.parts = cuts.count + 1;
    x.slot = cuts.slot();
    x.reserved = 0;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int w = 0; w < 3; ++w) {
      const bool real = 3 * k + w < members;
      const int m = real ? 3 * k + w : 3 * k, q = first + m / group, offset = q * BLOCK - seq.start;
      const int r0 = offset < 0 ? -offset : 0, left = seq.len - offset, r1 = !real ? 0 : left < BLOCK ? left : BLOCK;
      const int own = start(q), lowest = final ? own : x.last - x.window + 1;
      x.w[w].x = (seq.tile + q - first) * heads + head + m % group;
      x.w[w].y = q < x.last ? q : x.last;
      x.w[w].z = lowest | r1 << 20 | (final && own > 0) << 27 | (part > 0) << 28;
      x.w[w].w = (seq.row + offset) * 64 | r0;
    }
    return x;
  }
};
