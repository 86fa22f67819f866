package weights

import "math"

// F16ToFloat32 widens an IEEE 754 binary16 number. The result is exact.
func F16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h & 0x3ff)
	switch exp {
	case 0:
		// Subnormal or zero: frac * 2^-24, which float32 holds exactly.
		f := float32(frac) * 0x1p-24
		return math.Float32frombits(sign | math.Float32bits(f))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// Float32ToF16 rounds to the nearest IEEE 754 binary16 number, ties to even, as
// the hardware conversions do. Numbers beyond 65504 become infinite.
func Float32ToF16(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN: keep the upper payload, make it quiet
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x47800000: // 2^16 and above, infinity included
		return sign | 0x7c00
	case b < 0x38800000: // below 2^-14: subnormal, in units of 2^-24
		// Adding 0.5 aligns the units of 2^-24 with the last bit of a float32
		// in [0.5, 1), so the addition itself rounds to even.
		sum := math.Float32frombits(b) + 0.5
		return sign | uint16(math.Float32bits(sum)-math.Float32bits(0.5))
	}
	// Rebias the exponent and round away the 13 extra bits. A carry out of the
	// fraction increments the exponent, up to infinity, as it should.
	b -= (127 - 15) << 23
	b += 0xfff + b>>13&1
	return sign | uint16(b>>13)
}

// BF16ToFloat32 widens a bfloat16 number. The result is exact.
func BF16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// Float32ToBF16 rounds to the nearest bfloat16 number, ties to even.
func Float32ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 { // NaN: make it quiet, so that it stays one
		return uint16(b>>16) | 0x40
	}
	b += 0x7fff + b>>16&1
	return uint16(b >> 16)
}
