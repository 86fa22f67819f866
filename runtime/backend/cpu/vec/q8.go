package vec

import "math"

// Q8Block is the number of values that share a scale in ggml's Q8_0.
const Q8Block = 32

// q8NaN is the scale of a block with a value that is not finite: all of it reads
// as NaN.
const q8NaN = 0x7e00

// ToQ8 quantises whole blocks of 32 values as ggml's Q8_0 does: the scale of a
// block is its largest magnitude over 127, rounded to IEEE binary16; a value's
// code is the quotient by that rounded scale, rounded to nearest even and clamped
// to +-127. A code times its scale is exact in float32.
//
// A block with NaN or an infinity becomes one of NaN. Scales beyond the largest
// finite binary16 are clamped to it. codes and src have the same length, 32 times
// that of scales.
func (o Ops) ToQ8(codes []int8, scales []uint16, src []float32) {
	codes, src = codes[:len(scales)*Q8Block], src[:len(scales)*Q8Block]
	for i := range scales {
		to, from := (*[Q8Block]int8)(codes[i*Q8Block:]), (*[Q8Block]float32)(src[i*Q8Block:])
		var bits uint32
		if o.avx2 {
			bits = largestAVX2(from)
		} else {
			bits = genericLargest(from)
		}
		largest := math.Float32frombits(bits)
		if bits >= math.Float32bits(float32(math.Inf(1))) {
			scales[i] = q8NaN
			*to = [Q8Block]int8{}
			continue
		}
		scales[i] = f16Bits(largest / 127)
		scale := f16ToFloat32(scales[i])
		switch {
		case scale == 0:
			*to = [Q8Block]int8{}
		case o.avx2:
			quantiseAVX2(to, from, scale)
		default:
			genericQuantise(to, from, scale)
		}
	}
}

// genericLargest returns the bits of the largest magnitude. As integers, the bits
// of magnitudes are ordered like their values, and those of NaN come last.
func genericLargest(x *[Q8Block]float32) uint32 {
	bits := uint32(0)
	for _, v := range x {
		bits = max(bits, math.Float32bits(v)&^(1<<31))
	}
	return bits
}

func genericQuantise(codes *[Q8Block]int8, x *[Q8Block]float32, scale float32) {
	for i, v := range x {
		codes[i] = int8(math.RoundToEven(float64(clamp(v/scale, 127))))
	}
}
