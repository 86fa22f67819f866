// The producer of the prefill attention of prefill_hopper.cuh: it takes items from the
// queue and has a loader bring their pages to where consumers (or converters) wait.
#pragma once
#include "prefill_hopper.cuh"

namespace hopper {

// A place in a ring and the parity of the waits for it; those for "empty" start at 1,
// since the first round is free.
template <int N>
struct Place {
  int at = 0;
  uint32_t parity;
  __device__ __forceinline__ explicit Place(uint32_t parity) : parity(parity) {}
  __device__ __forceinline__ void next() { if (++at == N) at = 0, parity ^= 1; }
};

// Copies of bfloat16 pages to the rings of the consumers, by one lane.
template <int HD>
struct LoaderBF16 {
  static constexpr int T = TILE<HD>;
  const Shared<HD, false>& m;
  Place<STAGES> k{1}, v{1};
  __device__ __forceinline__ explicit LoaderBF16(const Shared<HD, false>& m) : m(m) {}
  __device__ __forceinline__ void keys(const char* pool, int page, bool issue) {
    if (issue) {
      barWait(m.kEmpty + 8 * k.at, k.parity);
      barExpect(m.kFull + 8 * k.at, T);
      bulkCopy(m.k + k.at * T, pool + (int64_t)page * 2 * T, T, m.kFull + 8 * k.at);
    }
    k.next();
  }
  __device__ __forceinline__ void values(const char* pool, int page, bool issue) {
    if (issue) {
      barWait(m.vEmpty + 8 * v.at, v.parity);
      barExpect(m.vFull + 8 * v.at, T);
      bulkCopy(m.v + v.at * T, pool + (int64_t)page * 2 * T + T, T, m.vFull + 8 * v.at);
    }
    v.next();
  }
  // Waits until the consumers are through with all tiles.
  __device__ __forceinline__ void drain() const {
    Place<STAGES> p = v;
    for (int i = 0; i < STAGES; ++i, p.next()) barWait(m.vEmpty + 8 * p.at, p.parity);
  }
  __device__ __forceinline__ void end() {}
};

// The producer: one warp, whose lane 0 issues the copies.
template <int HD, bool FP8, class Loader>
__device__ __forceinline__ void produce(const PrefillArgs& a, const Shared<HD, FP8>& m, Loader& loader, int lane) {
  constexpr int T = TILE<HD>;
  int slot = 0;
  uint32_t qp = 1, ip = 1;
  const int runs = a.head->runs, tickets = runs ? runs : a.head->items;
  int ticket = 0, it = 0, end = 0;  // what comes next, and where my run ends
  auto draw = [&]() { if (lane == 0) ticket = atomicAdd(a.queue, 1); };
  draw();
  for (;;) {
    int exact = 0;
    while (it == end) {  // a run may be empty
      const int t = __shfl_sync(~0u, ticket, 0);
      if (t >= tickets) break;
      it = !runs ? t : t ? a.head->ends[t - 1] : 0;
      end = runs ? a.head->ends[t] : t + 1;
      draw();
    }
    if (lane == 0) barWait(m.itemEmpty + 8 * slot, ip);
    __syncwarp();
    if (it == end) {
      it = end = -1;
      if (lane == 0) {
        // The queue is empty. Once this thread block's consumers are through, take
        // items that some thread block sent back.
        loader.drain();
        volatile int* queue = a.queue;
        for (int t = queue[2]; t < queue[3];) {
          const int old = atomicCAS(a.queue + 2, t, t + 1);
          if (old == t) {
            while ((it = atomicExch(a.redo + t, 0)) == 0) {}
            --it;
            break;
          }
          t = old;
        }
      }
      it = __shfl_sync(~0u, it, 0);
      end = it + 1;
      exact = EXACT;
      if (it < 0) {
        if (lane == 0) {
          loader.end();
          m.item[slot].pages = -1;
          barArrive(m.itemFull + 8 * slot);
        }
        break;
      }
    }
    if (lane < (int)sizeof(PrefillItem) / 16) ((int4*)&m.item[slot])[lane] = ((const int4*)(a.items + it))[lane];
    __syncwarp();
    if (lane == 0) {
      m.index[slot] = it | (m.item[slot].parts > 1 ? EXACT : exact);
      barArrive(m.itemFull + 8 * slot);
      if (exact) a.flag[it] = 0;
    }
    __syncwarp();
    const PrefillItem* item = &m.item[slot];
    const int last = item->last, window = item->window, pages = item->pages;
    const int* table = a.table + (int64_t)item->table * a.maxBlocks;
    int pk = 0, pv = 0, now = 0, next = 0;
    auto fetch = [&](int i) {
      i = min(i + lane, pages - 1);
      return __ldg(table + (i < window ? last - i : 0));
    };
    next = fetch(0);
    for (int t = 0; t <= pages; ++t) {
      if (t < pages) {  // keys of page t
        if (t % 32 == 0) {  // 32 page numbers at a time, one load ahead
          now = next;
          if (t + 32 < pages) next = fetch(t + 32);
        }
        pk = __shfl_sync(~0u, now, t % 32);
        loader.keys(a.pool, pk, lane == 0);
      }
      if (t == 0) {  // queries, once the item before has computed its last scores
        if (lane == 0)
#pragma unroll
          for (int w = 0; w < GROUPS; ++w) {
            barWait(m.qEmpty + 8 * w, qp);
            barExpect(m.qFull + 8 * w, T);
            bulkCopy(m.q + w * T, a.q + (int64_t)item->w[w].x * T, T, m.qFull + 8 * w);
          }
        qp ^= 1;
      } else {  // values of page t-1
        loader.values(a.pool, pv, lane == 0);
      }
      pv = pk;
    }
    if ((slot ^= 1) == 0) ip ^= 1;
    ++it;
  }
  if (lane == 0) {  // the last thread block to finish resets the queue for the next launch
    __threadfence();
    if (atomicAdd(a.queue + 1, 1) == (int)gridDim.x - 1) {
      a.queue[0] = a.queue[1] = a.queue[2] = a.queue[3] = 0;
      __threadfence();
    }
  }
}

// The loader of a type of page.
template <int HD>
struct LoaderE4M3;
template <int HD, bool FP8>
struct Loader { using Type = LoaderBF16<HD>; };
template <int HD>
struct Loader<HD, true> { using Type = LoaderE4M3<HD>; };

}  // namespace hopper
