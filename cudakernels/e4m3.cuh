// KV pages in e4m3 (fp8): an 8-bit float of 4 exponent and 3 mantissa bits, with one
// scale for the keys and one for the values of a page. Largest value 448, smallest
// normal one 2^-6, steps of 2^-9 below.
//
// Scales are powers of two, so that quantising rounds once and a code times its scale
// is exact in bfloat16. The largest magnitude of a block's first token alone decides
// them: it becomes 2 to 4. So they depend neither on how a prompt was cut nor on what
// else ran, and later tokens never change what is stored. They may be 112 times larger
// before they saturate, and an eighth as large before subnormals cost more than the 3
// bits of a normal number do.
//
// Keys are stored multiplied by a Hadamard matrix (rope.cu), their scale is that of the
// first one before. What is stored has the length of the key, in all stored dimensions,
// so its largest magnitude lies within a factor of sqrt(stored), 16 at most, of the
// key's: the first one's in 2/16 to 64, which is normal and does not saturate.
#pragma once
#include "plan.cuh"

// Bytes of the keys (or the values) of a page, and of a page: keys, values, the scale of
// the keys, that of the values, both float32, and padding to whole sectors and lines.
__host__ __device__ constexpr int tileBytesE4M3(int stored) { return BLOCK * stored; }
__host__ __device__ constexpr int pageBytesE4M3(int stored) { return 2 * tileBytesE4M3(stored) + 128; }

// Where the 16-byte chunk of a token's dimensions 16c to 16c+15 lies in its row: 8
// tokens in a row differ in their banks for one chunk, two for four chunks.
__host__ __device__ inline int chunkE4M3(int token, int c, int stored) {
  return (c ^ ((token & 1) << 2 | (token >> 1 & 3))) & (stored / 16 - 1);
}
// Byte of element (token, d). In a chunk, dimensions i and i+8 lie side by side, so that
// unpacked pairs are what a fragment of 16-bit elements holds.
__host__ __device__ inline int offsetE4M3(int token, int d, int stored) {
  return token * stored + chunkE4M3(token, d >> 4, stored) * 16 + (d & 7) * 2 + (d >> 3 & 1);
}

#ifdef __CUDACC__
// The scale of a page whose first token has this largest magnitude. The bounds: below
// 2^-6 a first token of little weight (the values of a sink) would have the others
// saturate; above 2^7 a code no longer fits the conversion below.
__device__ __forceinline__ float scaleE4M3(float largest) {
  const int exponent = (int)(__float_as_uint(largest) >> 23) - 127;
  return __uint_as_float((uint32_t)(min(max(exponent - 1, -6), 7) + 127) << 23);
}
// 1/x of a power of two.
__device__ __forceinline__ float inverse(float x) { return __uint_as_float((254u << 23) - __float_as_uint(x)); }

// Two codes, lo in the low byte: rounded to nearest even, saturated; NaN stays NaN.
__device__ __forceinline__ uint32_t packE4M3(float lo, float hi) {
#if HOPPER
  uint16_t y;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(hi), "f"(lo));
  return y;
#else
  auto code = [](float x) {
    const uint32_t sign = __float_as_uint(x) >> 24 & 0x80;
    const float a = fminf(fabsf(x), 448.f);
    const uint32_t bits = __float_as_uint(a);
    const uint32_t normal = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3), small = (uint32_t)__float2int_rn(a * 512.f);
    return sign | (x != x ? 0x7f : a < 0x1p-6f ? small : normal);
  };
  return code(lo) | code(hi) << 8;
#endif
}

// Four codes of a chunk become two pairs of float16, codes 0 and 2, codes 1 and 3, in
// units of HALF_UNIT. Without the instruction, the exponent is taken as it is, which is
// 8 less; a NaN reads as 480.
constexpr float HALF_UNIT = HOPPER ? 1 : 256;
__device__ __forceinline__ void unpackHalf(uint32_t x, uint32_t& even, uint32_t& odd) {
#if HOPPER
  asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\ncvt.rn.f16x2.e4m3x2 %0, a;\ncvt.rn.f16x2.e4m3x2 %1, b;\n}" : "=r"(even), "=r"(odd) : "r"(__byte_perm(x, 0, 0x3120)));
#else
  const uint32_t e = __byte_perm(x, 0, 0x2404), o = __byte_perm(x, 0, 0x3414);
  even = (e & 0x80008000u) | (e >> 1 & 0x3f803f80u);
  odd = (o & 0x80008000u) | (o >> 1 & 0x3f803f80u);
#endif
}

// The same as bfloat16 times the page's scale, exact. The exponent of a code is taken as
// it is, 120 less, and the product makes good for it; a NaN reads as 480.
struct ScaleBF16 {
  uint32_t factor;
  __device__ __forceinline__ explicit ScaleBF16(float scale) { factor = ((__float_as_uint(scale) >> 16) + (120 << 7)) * 0x10001u; }
  __device__ __forceinline__ void unpack(uint32_t x, uint32_t& even, uint32_t& odd) const {
    even = times(x << 4, x << 8);
    odd = times(x >> 4, x);
  }
  // A pair of magnitudes and a pair of signs, among other bits.
  __device__ __forceinline__ uint32_t times(uint32_t magnitudes, uint32_t signs) const {
    uint32_t y;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(magnitudes & 0x07f007f0u), "r"(factor ^ (signs & 0x80008000u)), "r"(0x80008000u));
    return y;
  }
};

__device__ __forceinline__ uint32_t packHalf(float lo, float hi) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}
__device__ __forceinline__ void mmaHalf(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif  // __CUDACC__
