package vec

import (
	"math"

	"github.com/moaserve/moaserve/runtime/weights"
)

// The largest finite values of the 16-bit types. Conversion clamps to them:
// infinity in a KV page would turn every later answer that looks at it into
// NaN, where a clamped outlier only loses precision.
const (
	maxF16  = 65504
	maxBF16 = 0x1.fep127
)

// ToF16 converts to IEEE binary16, rounding to nearest even. Values beyond
// +-65504 are clamped to it; NaN stays NaN. Both slices have the same length.
func (o Ops) ToF16(dst []uint16, src []float32) {
	src = src[:len(dst)]
	n := 0
	if o.avx2 {
		if n = len(dst) &^ (lanes - 1); n > 0 {
			toF16AVX2(&dst[0], &src[0], n)
		}
	}
	for i := n; i < len(dst); i++ {
		dst[i] = f16Bits(src[i])
	}
}

// FromF16 converts from IEEE binary16. Both slices have the same length.
func (o Ops) FromF16(dst []float32, src []uint16) {
	src = src[:len(dst)]
	n := 0
	if o.avx2 {
		if n = len(dst) &^ (lanes - 1); n > 0 {
			fromF16AVX2(&dst[0], &src[0], n)
		}
	}
	for i := n; i < len(dst); i++ {
		dst[i] = f16ToFloat32(src[i])
	}
}

// ToBF16 converts to bfloat16, rounding to nearest even. Values beyond the
// largest finite bfloat16 are clamped to it; NaN stays NaN. Both slices have
// the same length.
func (o Ops) ToBF16(dst []uint16, src []float32) {
	src = src[:len(dst)]
	n := 0
	if o.avx2 {
		if n = len(dst) &^ (lanes - 1); n > 0 {
			toBF16AVX2(&dst[0], &src[0], n)
		}
	}
	for i := n; i < len(dst); i++ {
		dst[i] = bf16Bits(src[i])
	}
}

// FromBF16 converts from bfloat16. Both slices have the same length.
func (o Ops) FromBF16(dst []float32, src []uint16) {
	src = src[:len(dst)]
	n := 0
	if o.avx2 {
		if n = len(dst) &^ (lanes - 1); n > 0 {
			fromBF16AVX2(&dst[0], &src[0], n)
		}
	}
	for i := n; i < len(dst); i++ {
		dst[i] = weights.BF16ToFloat32(src[i])
	}
}

// f16ToFloat32 widens one IEEE binary16 value. Unlike weights.F16ToFloat32 it makes
// a NaN quiet, as the instruction does.
func f16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	abs := uint32(h&0x7fff) << 13
	switch {
	case abs < 0x7c00<<13:
		// The product moves the exponent from one bias to the other, and makes
		// normal numbers of subnormal ones.
		return math.Float32frombits(math.Float32bits(math.Float32frombits(abs)*0x1p112) | sign)
	case abs == 0x7c00<<13:
		return math.Float32frombits(sign | 0x7f800000)
	default: // NaN, made quiet as the hardware does
		return math.Float32frombits(sign | 0x7fc00000 | abs)
	}
}

func f16Bits(f float32) uint16 { return weights.Float32ToF16(clamp(f, maxF16)) }

func bf16Bits(f float32) uint16 { return weights.Float32ToBF16(clamp(f, maxBF16)) }

// clamp leaves NaN alone.
func clamp(f, limit float32) float32 {
	switch {
	case f > limit:
		return limit
	case f < -limit:
		return -limit
	}
	return f
}
