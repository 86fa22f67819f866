package weightstest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/moaserve/moaserve/runtime/weights"
)

// Quantize stores values as type t, by rounding to the grid that the extremes
// of each block span. It is plain and deterministic; it does not search for the
// best scales as converters do.
func Quantize(t weights.Type, values []float32) ([]byte, error) {
	n := t.BlockElems()
	if n == 0 || len(values)%n != 0 {
		return nil, fmt.Errorf("quantise: %d values do not divide into blocks of %v", len(values), t)
	}
	out := make([]byte, 0, t.RowBytes(len(values)))
	for ; len(values) > 0; values = values[n:] {
		out = appendBlock(out, t, values[:n])
	}
	return out, nil
}

func appendBlock(out []byte, t weights.Type, x []float32) []byte {
	switch t {
	case weights.F32:
		return binary.LittleEndian.AppendUint32(out, math.Float32bits(x[0]))
	case weights.F16:
		return appendF16(out, x[0])
	case weights.BF16:
		return binary.LittleEndian.AppendUint16(out, weights.Float32ToBF16(x[0]))
	case weights.Q4_0, weights.Q5_0:
		return appendSymmetric(out, t == weights.Q5_0, x)
	case weights.Q4_1, weights.Q5_1:
		return appendAffine(out, t == weights.Q5_1, x)
	case weights.Q8_0:
		d, inv := gridScale(largest(x) / 127)
		out = appendF16(out, d)
		for _, v := range x {
			out = append(out, byte(int8(quantum(v, inv, -127, 127))))
		}
		return out
	case weights.Q4_K, weights.Q5_K:
		return appendKAffine(out, t == weights.Q5_K, x)
	default: // Q6_K, the last of weights.Types
		return appendQ6K(out, x)
	}
}

// appendSymmetric writes a block of Q4_0 or Q5_0: d*(q-8) or d*(q-16).
func appendSymmetric(out []byte, five bool, x []float32) []byte {
	half := 8
	if five {
		half = 16
	}
	d, inv := gridScale(largest(x) / float32(half-1))
	q := make([]int, len(x))
	for i, v := range x {
		q[i] = quantum(v, inv, -half, half-1) + half
	}
	return appendNibbles(appendF16(out, d), five, q)
}

// appendAffine writes a block of Q4_1 or Q5_1: d*q+m.
func appendAffine(out []byte, five bool, x []float32) []byte {
	top := 15
	if five {
		top = 31
	}
	low, high := extremes(x)
	m := roundF16(low)
	d, inv := gridScale((high - m) / float32(top))
	q := make([]int, len(x))
	for i, v := range x {
		q[i] = quantum(v-m, inv, 0, top)
	}
	return appendNibbles(appendF16(appendF16(out, d), m), five, q)
}

// appendNibbles writes the fifth bits, if any, and the low four bits of 32
// integers: element i and i+16 share a byte.
func appendNibbles(out []byte, five bool, q []int) []byte {
	if five {
		var high uint32
		for i, v := range q {
			high |= uint32(v>>4&1) << i
		}
		out = binary.LittleEndian.AppendUint32(out, high)
	}
	for i := range 16 {
		out = append(out, byte(q[i]&15|q[i+16]&15<<4))
	}
	return out
}

// appendKAffine writes a block of Q4_K or Q5_K: eight sub-blocks of 32, each
// d*scale*q - dmin*minimum with 6-bit scales and minima.
func appendKAffine(out []byte, five bool, x []float32) []byte {
	top := 15
	if five {
		top = 31
	}
	var scales, minima [8]float32
	for j := range scales {
		low, high := extremes(x[32*j : 32*j+32])
		low = min(low, 0) // a minimum is only ever subtracted
		scales[j], minima[j] = (max(high, low)-low)/float32(top), -low
	}
	d, inv := gridScale(largest(scales[:]) / 63)
	dmin, invMin := gridScale(largest(minima[:]) / 63)
	var s, m [8]int
	q := make([]int, len(x))
	for j := range s {
		s[j], m[j] = quantum(scales[j], inv, 0, 63), quantum(minima[j], invMin, 0, 63)
		step := float32(0)
		if s[j] > 0 && d > 0 {
			step = 1 / (d * float32(s[j]))
		}
		for i := 32 * j; i < 32*j+32; i++ {
			q[i] = quantum(x[i]+dmin*float32(m[j]), step, 0, top)
		}
	}
	out = appendF16(appendF16(out, d), dmin)
	out = append(out, packScales(s, m)...)
	if five {
		var high [32]byte
		for i, v := range q {
			high[i%32] |= byte(v>>4&1) << (i / 32)
		}
		out = append(out, high[:]...)
	}
	for pair := range 4 {
		for i := range 32 {
			out = append(out, byte(q[64*pair+i]&15|q[64*pair+32+i]&15<<4))
		}
	}
	return out
}

// packScales packs eight 6-bit scales and minima into 12 bytes, as
// ggml does: the first four of each have bytes of their own, whose upper two
// bits hold the upper bits of the last four.
func packScales(s, m [8]int) []byte {
	b := make([]byte, 12)
	for j := range 4 {
		b[j] = byte(s[j] | s[j+4]>>4<<6)
		b[j+4] = byte(m[j] | m[j+4]>>4<<6)
		b[j+8] = byte(s[j+4]&15 | m[j+4]&15<<4)
	}
	return b
}

// appendQ6K writes a block of Q6_K: sixteen sub-blocks of 16, each
// d*scale*(q-32) with 8-bit scales.
func appendQ6K(out []byte, x []float32) []byte {
	var scales [16]float32
	for j := range scales {
		scales[j] = largest(x[16*j:16*j+16]) / 31
	}
	d, inv := gridScale(largest(scales[:]) / 127)
	low, high := make([]byte, 128), make([]byte, 64)
	packed := make([]byte, 16)
	for j := range scales {
		s := quantum(scales[j], inv, 0, 127)
		packed[j] = byte(s)
		step := float32(0)
		if s > 0 && d > 0 {
			step = 1 / (d * float32(s))
		}
		for i := 16 * j; i < 16*j+16; i++ {
			q := quantum(x[i], step, -32, 31) + 32
			// Position within the half, and the quarter of 32 it belongs to.
			half, quarter, at := i/128, i/32%4, i%32
			low[64*half+32*(quarter&1)+at] |= byte(q&15) << (4 * (quarter >> 1))
			high[32*half+at] |= byte(q>>4) << (2 * quarter)
		}
	}
	out = append(append(append(out, low...), high...), packed...)
	return appendF16(out, d)
}

func appendF16(out []byte, f float32) []byte {
	return binary.LittleEndian.AppendUint16(out, weights.Float32ToF16(f))
}

func roundF16(f float32) float32 { return weights.F16ToFloat32(weights.Float32ToF16(f)) }

// gridScale rounds a step to what is stored, and returns its inverse; 0 for a
// block of zeros.
func gridScale(step float32) (d, inverse float32) {
	d = roundF16(step)
	if d == 0 {
		return 0, 0
	}
	return d, 1 / d
}

// quantum rounds v*inverse to an integer between low and high.
func quantum(v, inverse float32, low, high int) int {
	return int(min(max(math.RoundToEven(float64(v*inverse)), float64(low)), float64(high)))
}

func largest(x []float32) float32 {
	var a float32
	for _, v := range x {
		a = max(a, float32(math.Abs(float64(v))))
	}
	return a
}

func extremes(x []float32) (low, high float32) {
	low, high = x[0], x[0]
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	return low, high
}
