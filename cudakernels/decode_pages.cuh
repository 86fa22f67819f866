// How a warp of the decode attention reads a page in shared memory, by type of page:
// fragments of its 16 tokens of the keys and of its quarter of the values' dimensions,
// and the products with them.
#pragma once
#include "e4m3.cuh"

// bfloat16 pages.
template <int HD>
struct PagesBF16 {
  static constexpr int HEAD_DIM = HD;
  static constexpr bool SCALED = false;
  static constexpr int RING = 2;  // pages in shared memory at most
  static constexpr int TILE = BLOCK * HD * 2, PAGE = 2 * TILE;
  static constexpr int COLUMNS = HD / 64, ROW = 128;  // columns of a tile, bytes of a row of one
  static constexpr int MT = HD / 64;                  // a warp's 16-row tiles of O^T
  using Query = uint32_t[HD / 16][2];
  uint32_t ka[HD / 16][4], va[4][MT][4], kBase, vBase[MT];

  // ldmatrix addresses in a tile; for K a step of 16 dimensions is an XOR with 32 in 128
  // bytes, and 8192 per 64 dimensions.
  __device__ __forceinline__ PagesBF16(uint32_t ring, int w, int lane) {
    const int row = lane & 7;
    kBase = ring + (16 * w + ((lane >> 3) & 1) * 8 + row) * 128 + (((lane >> 4) ^ row) << 4);
#pragma unroll
    for (int i = 0; i < MT; ++i) {
      const int c = (HD / 32) * w + 2 * i + ((lane >> 3) & 1);
      vBase[i] = ring + TILE + (c >> 3) * 8192 + ((lane >> 4) * 8 + row) * 128 + (((c & 7) ^ row) << 4);
    }
  }
  __device__ __forceinline__ void loadKeys(int at) {
#pragma unroll
    for (int k = 0; k < HD / 16; ++k) ldsm4(ka[k], ((kBase + at * PAGE) ^ ((k & 3) << 5)) + (k >> 2) * 8192);
  }
  __device__ __forceinline__ void loadValues(int at) {
#pragma unroll
    for (int t = 0; t < 4; ++t)
#pragma unroll
      for (int i = 0; i < MT; ++i) ldsm4t(va[t][i], vBase[i] + at * PAGE + t * 2048);
  }
  static __device__ __forceinline__ void prepare(Query&) {}
  __device__ __forceinline__ void scores(float (&c)[4][4], const Query& q) const {
#pragma unroll
    for (int k = 0; k < HD / 16; ++k) mma(c[k & 3], ka[k], q[k][0], q[k][1]);
  }
  static __device__ __forceinline__ uint32_t probabilities(float lo, float hi) { return pack(lo, hi); }
  // O^T += V^T P^T of 16 tokens.
  __device__ __forceinline__ void output(float (&o)[MT][4], int t, uint32_t p0, uint32_t p1) const {
#pragma unroll
    for (int i = 0; i < MT; ++i) mma(o[i], va[t][i], p0, p1);
  }
};

// e4m3 pages: codes are converted to float16 right before the products, in which
// queries and probabilities are float16, too. The scales stay outside.
template <int HD>
struct PagesE4M3 {
  static constexpr int HEAD_DIM = HD;
  static constexpr bool SCALED = true;  // scales follow the values of a page
  static constexpr int RING = HD == 64 ? 4 : HD == 128 ? 3 : 2;
  static constexpr int TILE = tileBytesE4M3(HD), PAGE = pageBytesE4M3(HD);
  static constexpr int COLUMNS = 1, ROW = HD;
  static constexpr int MT = HD / 64;
  using Query = uint32_t[HD / 16][2];
  uint32_t ka[HD / 32][4], va[2][MT][4], kBase, vBase[MT];

  __device__ __forceinline__ PagesE4M3(uint32_t ring, int w, int lane) {
    const int row = lane & 7, token = ((lane >> 3) & 1) * 8 + row;
    kBase = ring + (16 * w + token) * HD + chunkE4M3(row, lane >> 4, HD) * 16;
#pragma unroll
    for (int i = 0; i < MT; ++i) vBase[i] = ring + TILE + lane * HD + chunkE4M3(row, MT * w + i, HD) * 16;
  }
  __device__ __forceinline__ void loadKeys(int at) {
#pragma unroll
    for (int k = 0; k < HD / 32; ++k) ldsm4(ka[k], (kBase + at * 2 * TILE) ^ (k << 5));
  }
  __device__ __forceinline__ void loadValues(int at) {
#pragma unroll
    for (int t = 0; t < 2; ++t)
#pragma unroll
      for (int i = 0; i < MT; ++i) ldsm4t(va[t][i], vBase[i] + (at * 2 * BLOCK + t * 32) * HD);
  }
  // bfloat16 pairs to float16.
  static __device__ __forceinline__ void prepare(Query& q) {
#pragma unroll
    for (int k = 0; k < HD / 16; ++k)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float2 x = unpack(q[k][j]);
        q[k][j] = packHalf(x.x, x.y);
      }
  }
  __device__ __forceinline__ void scores(float (&c)[4][4], const Query& q) const {
#pragma unroll
    for (int k = 0; k < HD / 32; ++k)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t a[4];
        unpackHalf(ka[k][2 * j], a[0], a[2]);
        unpackHalf(ka[k][2 * j + 1], a[1], a[3]);
        mmaHalf(c[(2 * k + j) & 3], a, q[2 * k + j][0], q[2 * k + j][1]);
      }
  }
  static __device__ __forceinline__ uint32_t probabilities(float lo, float hi) { return packHalf(lo, hi); }
  __device__ __forceinline__ void output(float (&o)[MT][4], int t, uint32_t p0, uint32_t p1) const {
#pragma unroll
    for (int i = 0; i < MT; ++i) {
      uint32_t a[4];
      unpackHalf(va[t >> 1][i][(t & 1) * 2], a[0], a[1]);
      unpackHalf(va[t >> 1][i][(t & 1) * 2 + 1], a[2], a[3]);
      mmaHalf(o[i], a, p0, p1);
    }
  }
};
