// Prefill attention with mma.sync: four warps of 16 query rows take one member of
// an item at a time and walk the pages it sees, one tile of keys and one of values
// in shared memory: values load while scores are computed, the next keys while
// values are used.
//
// The codes of e4m3 pages become bfloat16, scaled, between shared memory and the
// product.
#pragma once

template <int BYTES>
__device__ __forceinline__ void copyTile(uint32_t dst, const char* src) {
#pragma unroll 8
  for (int i = threadIdx.x; i < BYTES / 16; i += 128) copyAsync16(dst + i * 16, src + i * 16);
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int HD, bool FP8>
__device__ __forceinline__ void prefillMMA(const PrefillArgs& a) {
  constexpr int TILE_KV = FP8 ? tileBytesE4M3(HD) : TILE<HD>, PAGE = FP8 ? pageBytesE4M3(HD) : 2 * TILE_KV;
  extern __shared__ __align__(1024) uint8_t shared[];
  int& ticket = *(int*)(shared + TILE<HD> + 2 * TILE_KV);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, r7 = lane & 7, quad = lane & 3;
  const uint32_t sq = sharedAddress(shared), sk = sq + TILE<HD>, sv = sk + TILE_KV;
  // ldmatrix addresses; a step of 16 dimensions is an XOR with 32, and 8192 per 64.
  const uint32_t qBase = sq + (16 * warp + ((lane >> 3) & 1) * 8 + r7) * 128 + (((lane >> 4) ^ r7) << 4);
  const uint32_t kBase = sk + ((lane >> 4) * 8 + r7) * 128 + ((((lane >> 3) & 1) ^ r7) << 4);
  const uint32_t vBase = sv + (((lane >> 3) & 1) * 8 + r7) * 128 + (((lane >> 4) ^ r7) << 4);
  // The same in e4m3 tiles: 32 keys of one chunk of 16 dimensions, 16 keys of two.
  const uint32_t k8Base = sk + lane * HD + chunkE4M3(r7, 0, HD) * 16;
  const uint32_t v8Base = sv + (((lane >> 3) & 1) * 8 + r7) * HD + chunkE4M3(r7, lane >> 4, HD) * 16;
  const int row = 16 * warp + (lane >> 2);  // my rows: row and row+8
  launchDependents();
  waitForPrevious();
  const int n = 3 * a.head->items;
  for (;;) {
    if (threadIdx.x == 0) ticket = atomicAdd(a.queue, 1);
    __syncthreads();
    const int unit = ticket;
    __syncthreads();
    if (unit >= n) break;
    const PrefillItem& item = a.items[unit / 3];
    const int4 w = item.w[unit % 3];
    const int q = w.y, start = w.z & 0xfffff;
    if ((w.z >> 20 & 127) == 0) continue;
    const int pages = q - start + 1 + (w.z >> 27 & 1);
    const int* table = a.table + (int64_t)item.table * a.maxBlocks;
    auto page = [&](int i) { return a.pool + (int64_t)table[i <= q - start ? q - i : 0] * PAGE; };
    float o[HD / 8][4];
#pragma unroll
    for (int i = 0; i < HD / 8; ++i) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0;
    float m0 = -INFINITY, m1 = -INFINITY, l0 = 0, l1 = 0;
    const char* now = page(0);
    copyTile<TILE<HD>>(sq, a.q + (int64_t)w.x * TILE<HD>);
    copyTile<TILE_KV>(sk, now);
    for (int i = 0; i < pages; ++i) {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      __syncthreads();
      copyTile<TILE_KV>(sv, now + TILE_KV);
      const float2 scales = FP8 ? *(const float2*)(now + 2 * TILE_KV) : make_float2(1, 1);
      const ScaleBF16 keys(scales.x), values(scales.y);
      float s[8][4];
#pragma unroll
      for (int j = 0; j < 8; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
      for (int k = 0; k < HD / 16; ++k) {
        uint32_t qa[4];
        ldsm4(qa, (qBase ^ ((k & 3) << 5)) + (k >> 2) * 8192);
        if constexpr (FP8) {
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            uint32_t kb[4];
            ldsm4(kb, (k8Base + j * 32 * HD) ^ (k << 4));
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              uint32_t lo, hi;
              keys.unpack(kb[i], lo, hi);
              mma(s[4 * j + i], qa, lo, hi);
            }
          }
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            uint32_t kb[4];
            ldsm4(kb, ((kBase + j * 2048) ^ ((k & 3) << 5)) + (k >> 2) * 8192);
            mma(s[2 * j], qa, kb[0], kb[1]);
            mma(s[2 * j + 1], qa, kb[2], kb[3]);
          }
        }
      }
      if (i == 0 && !(w.z >> 28)) {  // the diagonal
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
          for (int x = 0; x < 2; ++x) {
            const int key = 8 * j + 2 * quad + x;
            if (key > row) s[j][x] = -INFINITY;
            if (key > row + 8) s[j][x + 2] = -INFINITY;
          }
      }
      float x0 = -INFINITY, x1 = -INFINITY;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        x0 = fmaxf(x0, fmaxf(s[j][0], s[j][1]));
        x1 = fmaxf(x1, fmaxf(s[j][2], s[j][3]));
      }
      x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 1)); x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 1));
      x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 2)); x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 2));
      const float n0 = fmaxf(m0, x0 * a.scale), n1 = fmaxf(m1, x1 * a.scale), a0 = ex2(m0 - n0), a1 = ex2(m1 - n1);
      m0 = n0; m1 = n1; l0 *= a0; l1 *= a1;
      uint32_t p[4][4];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        s[j][0] = ex2(fmaf(s[j][0], a.scale, -m0)); s[j][1] = ex2(fmaf(s[j][1], a.scale, -m0));
        s[j][2] = ex2(fmaf(s[j][2], a.scale, -m1)); s[j][3] = ex2(fmaf(s[j][3], a.scale, -m1));
        l0 += s[j][0] + s[j][1];
        l1 += s[j][2] + s[j][3];
        p[j >> 1][2 * (j & 1)] = pack(s[j][0], s[j][1]);
        p[j >> 1][2 * (j & 1) + 1] = pack(s[j][2], s[j][3]);
      }
#pragma unroll
      for (int j = 0; j < HD / 8; ++j) { o[j][0] *= a0; o[j][1] *= a0; o[j][2] *= a1; o[j][3] *= a1; }
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      __syncthreads();
      if (i + 1 < pages) {
        now = page(i + 1);
        copyTile<TILE_KV>(sk, now);
      }
#pragma unroll
      for (int t = 0; t < 4; ++t)
        if constexpr (FP8) {
#pragma unroll
          for (int j = 0; j < HD / 32; ++j) {
            uint32_t vb[4];
            ldsm4t(vb, (v8Base + t * 16 * HD) ^ (j << 5));
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              uint32_t lo[2], hi[2];
              values.unpack(vb[2 * i], lo[0], hi[0]);
              values.unpack(vb[2 * i + 1], lo[1], hi[1]);
              mma(o[4 * j + 2 * i], p[t], lo[0], lo[1]);
              mma(o[4 * j + 2 * i + 1], p[t], hi[0], hi[1]);
            }
          }
        } else {
#pragma unroll
          for (int j = 0; j < HD / 16; ++j) {
            uint32_t vb[4];
            ldsm4t(vb, ((vBase + t * 2048) ^ ((j & 3) << 5)) + (j >> 2) * 8192);
            mma(o[2 * j], p[t], vb[0], vb[1]);
            mma(o[2 * j + 1], p[t], vb[2], vb[3]);
          }
        }
    }
    l0 += __shfl_xor_sync(~0u, l0, 1); l1 += __shfl_xor_sync(~0u, l1, 1);
    l0 += __shfl_xor_sync(~0u, l0, 2); l1 += __shfl_xor_sync(~0u, l1, 2);
    // Read again: values from before the loop would take registers there.
    const int again = *(volatile int*)&ticket;
    const PrefillItem& done = a.items[again / 3];
    const int4 cut = *(const int4*)&done.part, rows = done.w[again % 3];
    const int r0 = rows.w & 63, r1 = rows.z >> 20 & 127, base = rows.w >> 6;
    const bool whole = cut.y == 1 || joinParts<HD>(a.parts, cut, again % 3 * 4 + warp, lane, &o[0][0], m0, m1, l0, l1);
    const float i0 = 1.f / l0, i1 = 1.f / l1;
    bf16* out = a.out + ((int64_t)(base + row) * a.queryHeads + rows.x % a.queryHeads) * a.headDim + 2 * quad;
    const bool ok0 = whole && row >= r0 && row < r1, ok1 = whole && row + 8 >= r0 && row + 8 < r1;
#pragma unroll
    for (int j = 0; j < HD / 8; ++j) {
      if (8 * j >= a.headDim) break;
      if (ok0) *(uint32_t*)(out + 8 * j) = pack(o[j][0] * i0, o[j][1] * i0);
      if (ok1) *(uint32_t*)(out + 8 * j + (int64_t)8 * a.queryHeads * a.headDim) = pack(o[j][2] * i1, o[j][3] * i1);
    }
    __syncthreads();
  }
  // The last thread block to find the queue empty resets it for the next launch.
  if (threadIdx.x == 0) {
    __threadfence();
    if (atomicAdd(a.queue + 1, 1) == (int)gridDim.x - 1) {
      a.queue[0] = 0;
      a.queue[1] = 0;
    }
  }
}
