package vec

import "math"

// The largest finite values of the 16-bit types. Conversion clamps to them:
// infinity in a KV page would turn every later answer that looks at it into
// NaN, where a clamped outlier only loses precision.
const (
	maxF16      = 65504
	maxBF16Bits = 0x7f7f
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
		dst[i] = F16ToFloat32(src[i])
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
		dst[i] = BF16ToFloat32(src[i])
	}
}

// F16ToFloat32 converts one IEEE binary16 value.
func F16ToFloat32(h uint16) float32 {
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

// BF16ToFloat32 converts one bfloat16 value.
func BF16ToFloat32(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

func f16Bits(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	switch abs := bits &^ (1 << 31); {
	case abs > 0x7f800000: // NaN
		return sign | 0x7e00 | uint16(abs>>13&0x1ff)
	case abs >= math.Float32bits(maxF16):
		return sign | 0x7bff
	case abs < math.Float32bits(0x1p-14):
		// Subnormal: adding 2^-1 rounds to multiples of 2^-24.
		magic := math.Float32frombits(abs) + 0.5
		return sign | uint16(math.Float32bits(magic)-math.Float32bits(0.5))
	default:
		rounded := abs + 0xfff + abs>>13&1
		return sign | uint16(rounded>>13-(127-15)<<10)
	}
}

func bf16Bits(f float32) uint16 {
	bits := math.Float32bits(f)
	switch abs := bits &^ (1 << 31); {
	case abs > 0x7f800000: // NaN
		return uint16(bits>>16) | 0x40
	case abs > maxBF16Bits<<16:
		return uint16(bits>>16&0x8000) | maxBF16Bits
	default:
		return uint16((bits + 0x7fff + bits>>16&1) >> 16)
	}
}
