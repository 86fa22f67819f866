// Kernels that prepare a step: page tables, the cut of the decode attention, the
// work list of the prefill attention.
#include "prefill_items.cuh"

extern "C" __global__ void scatter_pages(const Header* header, const TableDelta* deltas, int* table, int64_t heads, int64_t maxBlocks) {
  waitForPrevious();
  const int n = header->deltas;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const TableDelta d = deltas[i];
    table[((int64_t)d.slot * heads + d.head) * maxBlocks + d.block] = d.page;
  }
}

// One thread block a layer. The pages of all (sequence, KV head) pairs, in that
// order, are concatenated and cut into equal runs. A pair that is cut becomes an
// item of the merge.
extern "C" __global__ void __launch_bounds__(1024) decode_plan(
    const Header* header, const Seq* seqs, const Rule* rules, char* plans, int64_t stride, int64_t layers,
    int64_t kvHeads, int64_t group, int64_t blocks, int64_t headDim) {
  __shared__ int warps[32], nitems;
  waitForPrevious();
  const int layer = blockIdx.x, kv = (int)kvHeads, grid = (int)blocks, n = header->decodes * kv;
  DecodePlan plan(plans + layer * stride);
  int total = 0;
  for (int base = 0; base < n; base += 1024) {
    const int i = base + threadIdx.x;
    int pages = 0, start = 0;
    Seq s{};
    if (i < n) {
      s = seqs[i / kv];
      const int q = s.start / BLOCK;
      start = spanStart(rules[s.rules + layer * kv + i % kv], q, s.floor, s.total);
      pages = q - start + 1 + (start > 0);
    }
    int sum;
    const int before = total + blockScan(pages, sum, warps);
    if (i < n) plan.heads[i] = make_int4(before, start, s.slot, s.start);
    total += sum;
  }
  if (threadIdx.x == 0) {
    nitems = 0;
    plan.heads[n] = make_int4(total, 0, 0, 0);
  }
  __syncthreads();

  const int active = min(grid, total), per = active ? total / active : 0, rem = active ? total % active : 0;
  auto begin = [&](int c) { return c * per + min(c, rem); };
  for (int c = active + threadIdx.x; c < grid; c += 1024) plan.runs[c] = Run{};
  for (int i = threadIdx.x; i < n; i += 1024) {
    const int p = plan.heads[i].x, end = plan.heads[i + 1].x;
    // The first run that begins at or after p.
    int c = p < rem * (per + 1) ? (p + per) / (per + 1) : rem + (p - rem * (per + 1) + per - 1) / per;
    int first = -1, parts = 1;
    for (; c < active && begin(c) < end; ++c) {
      Run& r = plan.runs[c];
      r.begin = begin(c);
      r.pages = begin(c + 1) - begin(c);
      r.head = i;
      r.pairs = n;
      if (c == 0) continue;
      // The run before: how much of its end belongs to a head that goes on here.
      Run& last = plan.runs[c - 1];
      const int tail = begin(c) - max(p, begin(c - 1));
      last.tail = tail == begin(c) - begin(c - 1) ? 0 : tail;
      last.tailHead = i;
      if (begin(c) > p) {
        if (first < 0) first = c - 1;
        ++parts;
      }
    }
    if (c == active && end == total && active) plan.runs[active - 1].tail = 0;
    if (first >= 0) plan.items[atomicAdd(&nitems, 1)] = make_int4(i, first, parts, 0);
  }
  __syncthreads();
  for (int c = threadIdx.x; c < active; c += 1024) {
    Run& r = plan.runs[c];
    r.opens = plan.heads[r.tail ? r.tailHead : r.head];
  }
  if (threadIdx.x == 0) {
    // Every merging thread block has `share` elements of 4 floats, each of 2^lanes threads.
    const int elements = nitems * (int)(group * storedHeadDim((int)headDim) / 4);
    const int stride = elements <= grid / MERGE_STRIDE * DECODE_CONSUMERS ? MERGE_STRIDE : 1;
    const int mergers = (grid + stride - 1) / stride, share = (elements + mergers - 1) / mergers;
    int lanes = 0;
    while (lanes < 5 && share << (lanes + 1) <= DECODE_CONSUMERS) ++lanes;
    *plan.head = make_int4(elements, share, lanes, stride);
  }
}

// One thread block a layer. An item is three (query block, query head) pairs of
// one KV head, query heads fastest, so that its members share most of their pages.
// Order: the longest items (over a fifth of a multiprocessor's share) first; then
// sections of heads whose keys and values in use fit half of the L2 cache, long
// items first in each; the shortest items of all last, as much work as evens out
// the finishing times. A counting sort, by section and length in 256 steps.
//
// Items that are too few for the multiprocessors are cut: their pages are concatenated,
// in the order of sequences, KV heads and queries, and cut into equal runs, one a
// multiprocessor, which takes the parts in it. Where a thread block computes one member
// of an item and not three, there are no runs to take: parts go longest first like whole
// items.
extern "C" __global__ void __launch_bounds__(1024) prefill_plan(
    const Header* header, const Seq* seqs, const Rule* rules, char* plans, int64_t stride, int64_t maxItems,
    int64_t layers, int64_t kvHeads, int64_t group, int64_t headDim, int64_t sms) {
  constexpr int SECTIONS = 64, STEPS = 256, BINS = SECTIONS * STEPS, PAIRS = 8192;
  constexpr float SECTION_BYTES = 32e6f;
  extern __shared__ int bins[];
  uint8_t* const sections = (uint8_t*)(bins + BINS);
  int* const firsts = bins + BINS + PAIRS / 4;   // [MAX_CUT_ITEMS]: first item of a pair
  int* const begins = firsts + MAX_CUT_ITEMS;    // [MAX_CUT_ITEMS]: pages of the items before
  __shared__ int warps[32], number, shortest, longest, cut;
  __shared__ unsigned long long work;
  waitForPrevious();
  const int layer = blockIdx.x, kv = (int)kvHeads, g = (int)group, heads = (int)layers * kv;
  const int first = header->decodes, n = header->seqs;
  PrefillHead* const plan = (PrefillHead*)(plans + layer * stride);
  PrefillItem* const items = (PrefillItem*)(plan + 1);
  const float pageBytes = 4.f * BLOCK * storedHeadDim((int)headDim);
  if (threadIdx.x == 0) number = 0, shortest = 1 << 30, longest = 0, work = 0;

  // Which section every (sequence, KV head) pair belongs to, by the bytes before it.
  const int pairs = (n - first) * kv;
  float before = 0;
  for (int base = 0; base < pairs; base += 1024) {
    const int i = base + threadIdx.x;
    float bytes = 0;
    if (i < pairs) {
      const Seq s = seqs[first + i / kv];
      bytes = ((s.start + s.len - 1) / BLOCK - spanStart(rules[s.rules + layer * kv + i % kv], s.start / BLOCK, s.floor, s.total) + 1) * pageBytes;
    }
    float sum;
    const float at = before + blockScan(bytes, sum, (float*)warps);
    if (i < min(pairs, PAIRS)) sections[i] = (uint8_t)(1 + min((int)(at / SECTION_BYTES), SECTIONS - 3));
    before += sum;
  }
  __syncthreads();

  // Calls f(pages, section, fill) for every item, or every part once they are cut, and
  // then with its run for a section where thread blocks take runs; fill() makes it. A pair
  // is shared by as many threads as few pairs leave idle.
  int width = 1024, run = 0, runs = 0;
  while (width > 32 && 1024 / width < pairs) width >>= 1;
  auto pairAt = [&](int i) {
    const Seq s = seqs[first + i / kv];
    const int h = i % kv;
    return PrefillPair(s, rules[s.rules + layer * kv + h], s.slot * heads + layer * kv + h, h * g, g, kv * g);
  };
  auto each = [&](auto f) {
    for (int i = threadIdx.x / width; i < pairs; i += 1024 / width) {
      const PrefillPair pair = pairAt(i);
      const int section = i < PAIRS ? sections[i] : SECTIONS - 2;
      for (int k = threadIdx.x % width; k < pair.items(); k += width) {
        const int pages = pair.pages(k);
        const PrefillCuts cuts = run ? PrefillCuts(begins[firsts[i] + k], pages, run) : PrefillCuts();
        for (int part = 0; part <= cuts.count; ++part) {
          const int from = cuts.from(part), to = part == cuts.count ? pages : cuts.from(part + 1);
          f(to - from, runs ? min(cuts.runOf(part), runs - 1) : section, [&]() { return pair.item(k, cuts, part, from, to); });
        }
      }
    }
  };

  // How many items there are, their length in all, of the shortest and of the longest.
  __syncthreads();
  {
    unsigned long long sum = 0;
    int n = 0, least = 1 << 30, most = 0;
    each([&](int pages, int, auto) { ++n; sum += pages; least = min(least, pages); most = max(most, pages); });
    atomicAdd(&number, n);
    atomicMin(&shortest, least);
    atomicMax(&longest, most);
    atomicAdd(&work, sum);
  }
  __syncthreads();
  const int units = HOPPER && headDim <= 128 ? 1 : 3;
  const int cutRun = prefillRun(number, shortest, longest, (long long)work, min((int)sms, MAX_RUNS), units);
  if (cutRun > 0) {  // no more pairs than items, no more items than threads
    int sum;
    const int before = blockScan((int)threadIdx.x < pairs ? pairAt(threadIdx.x).items() : 0, sum, warps);
    firsts[threadIdx.x] = before;
    __syncthreads();
    for (int i = threadIdx.x / width; i < pairs; i += 1024 / width) {
      const PrefillPair pair = pairAt(i);
      for (int k = threadIdx.x % width; k < pair.items(); k += width) begins[firsts[i] + k] = pair.pages(k);
    }
    __syncthreads();
    begins[threadIdx.x] = blockScan((int)threadIdx.x < number ? begins[threadIdx.x] : 0, sum, warps);
    run = cutRun;
    if (units == 1) runs = (int)((work + run - 1) / run);
  }
  for (int i = threadIdx.x; i < BINS; i += 1024) bins[i] = 0;
  __syncthreads();
  // A part is shorter than a run and a cut that was left out on either side.
  const int top = run ? min(longest, run + 2 * MIN_PART) : max(longest, 1);
  auto step = [&](int pages) { return (int)((int64_t)(pages - 1) * STEPS / top); };
  // The length below which items go last: half the longest item's work on every
  // multiprocessor, at most half of all. One warp of bins: pages by length.
  each([&](int pages, int, auto) { atomicAdd(&bins[step(pages)], pages); });
  __syncthreads();
  if (threadIdx.x == 0) {
    const double most = fmin(0.5 * (double)sms * top, 0.5 * (double)work);
    double sum = 0;
    int i = 0;
    while (i < STEPS && sum < most) sum += bins[i++];
    cut = i;  // lengths in steps below i go last
  }
  __syncthreads();
  const int last = cut;
  const double lead = 0.2 * (double)work / (double)sms;
  auto bin = [&](int pages, int section) {
    if (runs) return section;
    const int s = pages > lead ? 0 : step(pages) < last ? SECTIONS - 1 : section;
    return s * STEPS + STEPS - 1 - step(pages);
  };
  for (int i = threadIdx.x; i < STEPS; i += 1024) bins[i] = 0;
  __syncthreads();
  each([&](int pages, int section, auto) { atomicAdd(&bins[bin(pages, section)], 1); });
  __syncthreads();
  int total = 0;
  for (int base = 0; base < BINS; base += 1024) {
    const int x = bins[base + threadIdx.x];
    int sum;
    const int before = total + blockScan(x, sum, warps);
    bins[base + threadIdx.x] = before;
    total += sum;
  }
  if (threadIdx.x == 0) plan->items = min(total, (int)maxItems), plan->runs = runs;
  if ((int)threadIdx.x < runs) plan->ends[threadIdx.x] = min(bins[threadIdx.x + 1], (int)maxItems);
  __syncthreads();
  each([&](int pages, int section, auto fill) {
    const int at = atomicAdd(&bins[bin(pages, section)], 1);
    if (at < maxItems) items[at] = fill();
  });
}
