// The way of e4m3 pages into the prefill attention of prefill_hopper.cuh. The tensor
// cores take both operands at 8 bits or none, and queries and probabilities at 8 bits
// would cost accuracy, so codes become bfloat16 in shared memory: three warps read a
// page of codes and write a tile of keys and one of values as a bfloat16 page has them,
// its scales multiplied in.
#pragma once
#include "prefill_hopper_produce.cuh"

namespace hopper {

// What the producer hands the converters; to drain, they wait until the consumers are
// through with all tiles.
enum Work { CONVERT, DRAIN, FINISH };

// Copies of pages to the ring of the converters, by one lane.
template <int HD>
struct LoaderE4M3 {
  static constexpr int BYTES = 2 * tileBytesE4M3(HD) + 16;  // with the scales
  const Shared<HD, true>& m;
  Place<RAW_STAGES> raw{1};
  __device__ __forceinline__ explicit LoaderE4M3(const Shared<HD, true>& m) : m(m) {}
  __device__ __forceinline__ uint32_t hand(Work work, int bytes) const {
    const uint32_t full = m.rawFull + 8 * raw.at;
    barWait(m.rawEmpty + 8 * raw.at, raw.parity);
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(m.rawWork + 4 * raw.at), "r"((int)work) : "memory");
    barExpect(full, bytes);
    return full;
  }
  __device__ __forceinline__ void keys(const char* pool, int page, bool issue) {
    if (issue) {
      const uint32_t full = hand(CONVERT, BYTES);
      bulkCopy(m.raw + raw.at * RAW_BYTES<HD>, pool + (int64_t)page * pageBytesE4M3(HD), BYTES, full);
    }
    raw.next();
  }
  __device__ __forceinline__ void values(const char*, int, bool) {}  // they came with the keys
  __device__ __forceinline__ void drain() {
    hand(DRAIN, 0);
    barWait(m.rawEmpty + 8 * raw.at, raw.parity ^ 1);
    raw.next();
  }
  __device__ __forceinline__ void end() const { hand(FINISH, 0); }
};

__device__ __forceinline__ uint4 loadShared(uint32_t at) {
  uint4 x;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(at));
  return x;
}
__device__ __forceinline__ void storeShared(uint32_t at, const uint32_t (&x)[4]) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]));
}

// A thread's share of the conversions: one chunk of 16 dimensions of every STEPth token.
// Eight lanes take four chunks of two tokens: those differ in their banks on both sides.
template <int HD>
struct Converter {
  static constexpr int COLUMNS = HD / 64, STEP = 32 * CONVERTERS / (4 * COLUMNS), TURNS = (BLOCK + STEP - 1) / STEP;
  static_assert(2 * STEP % 8 == 0, "swizzles repeat every two turns");
  uint32_t read[2], write[2];  // bytes in a tile, of the first two turns
  bool last;                   // there is a token left in the last turn; uniform in a warp
  __device__ __forceinline__ explicit Converter(int thread) {
    const int c = (thread & 3) + (thread >> 3) % COLUMNS * 4, first = thread / (8 * COLUMNS) * 2 + (thread >> 2 & 1);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = first + i * STEP;
      read[i] = token * HD + chunkE4M3(token, c, HD) * 16;
      write[i] = tileOffset(token, 16 * c);
    }
    last = first + (TURNS - 1) * STEP < BLOCK;
  }
  // Converts a tile of codes once the consumers are through with the place it goes to.
  // Loads run two turns ahead: they queue behind what wgmma reads.
  __device__ __forceinline__ void run(uint32_t from, uint32_t to, uint32_t empty, uint32_t parity, ScaleBF16 scale) const {
    constexpr int AHEAD = 2;
    uint4 x[AHEAD + 1];
    auto exists = [&](int i) { return i < TURNS - 1 || (i == TURNS - 1 && last); };
    auto load = [&](int i) {
      if (exists(i)) x[i % (AHEAD + 1)] = loadShared(from + read[i & 1] + (i >> 1) * (2 * STEP * HD));
    };
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) load(i);
    barWait(empty, parity);
#pragma unroll
    for (int i = 0; i < TURNS; ++i) {
      if (!exists(i)) break;
      load(i + AHEAD);
      const uint4 y = x[i % (AHEAD + 1)];
      uint32_t lo[4], hi[4];  // the first and the last 8 dimensions of the chunk
      scale.unpack(y.x, lo[0], hi[0]);
      scale.unpack(y.y, lo[1], hi[1]);
      scale.unpack(y.z, lo[2], hi[2]);
      scale.unpack(y.w, lo[3], hi[3]);
      const uint32_t at = to + write[i & 1] + (i >> 1) * (2 * STEP * 128);
      storeShared(at, lo);
      storeShared(at ^ 16, hi);
    }
  }
};

// One of the warps that convert, thread 0 to 32*CONVERTERS-1.
template <int HD>
__device__ __forceinline__ void convert(const Shared<HD, true>& m, int thread) {
  constexpr int T = TILE<HD>, T8 = tileBytesE4M3(HD);
  const bool leader = (thread & 31) == 0;
  const Converter<HD> converter(thread);
  Place<RAW_STAGES> raw(0);
  Place<STAGES> at(1);  // of the keys and of the values alike
  for (;; raw.next()) {
    barWait(m.rawFull + 8 * raw.at, raw.parity);
    const uint32_t from = m.raw + raw.at * RAW_BYTES<HD>;
    int work;
    float keys, values;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(work) : "r"(m.rawWork + 4 * raw.at) : "memory");
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(keys), "=f"(values) : "r"(from + 2 * T8) : "memory");
    if (work != CONVERT) {
      if (work == FINISH) return;
      for (int i = 0; i < STAGES; ++i, at.next()) barWait(m.vEmpty + 8 * at.at, at.parity);
      at.parity ^= 1;  // back from the round
    } else {
      // Stores come before the arrival, and before wgmma's reads behind it.
      auto publish = [&](uint32_t full) {
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncwarp();
        if (leader) barArrive(full);
      };
      converter.run(from, m.k + at.at * T, m.kEmpty + 8 * at.at, at.parity, ScaleBF16(keys));
      publish(m.kFull + 8 * at.at);
      converter.run(from + T8, m.v + at.at * T, m.vEmpty + 8 * at.at, at.parity, ScaleBF16(values));
      publish(m.vFull + 8 * at.at);
      at.next();
    }
    __syncwarp();
    if (leader) barArrive(m.rawEmpty + 8 * raw.at);
  }
}

}  // namespace hopper
