package matmul

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/weights"
)

var typeNames = map[weights.Type]string{
	weights.F32: "F32", weights.F16: "F16", weights.BF16: "BF16",
	weights.Q4_0: "Q4_0", weights.Q4_1: "Q4_1", weights.Q5_0: "Q5_0", weights.Q5_1: "Q5_1", weights.Q8_0: "Q8_0",
	weights.Q4_K: "Q4_K", weights.Q5_K: "Q5_K", weights.Q6_K: "Q6_K",
}

// allTypes lists the types in a fixed order.
var allTypes = []weights.Type{
	weights.F32, weights.F16, weights.BF16, weights.Q4_0, weights.Q4_1, weights.Q5_0, weights.Q5_1, weights.Q8_0,
	weights.Q4_K, weights.Q5_K, weights.Q6_K,
}

// isas lists the instruction sets of this machine; tests log those that it
// lacks.
func isas(t testing.TB) []isa.ISA {
	var out []isa.ISA
	for _, set := range []isa.ISA{isa.Generic, isa.AVX2, isa.AVX512} {
		if set.Available() {
			out = append(out, set)
		} else {
			t.Logf("%v is not available here: run this test on a machine that has it", set)
		}
	}
	return out
}

// f16bits rounds a number of f16's normal range toward zero; smaller ones become
// the smallest subnormal.
func f16bits(v float32) uint16 {
	b := math.Float32bits(v)
	if b>>23&255 < 113 {
		return uint16(b>>16&0x8000) | 1
	}
	return uint16(b>>16&0x8000) | uint16((b>>13&0x3ffff)-112<<10)
}

// fill says how the codes of a random tensor are drawn.
type fill int

const (
	random  fill = iota
	highest      // every code and integer scale has all bits set
	lowest       // every signed code is the most negative one
)

// newTensor returns a tensor of random bytes with scales of sensible size.
func newTensor(rng *rand.Rand, typ weights.Type, out, in int, f fill) weights.Tensor {
	k := kinds[typ]
	data := make([]byte, out*in/k.srcCols*k.srcBlock)
	for i := range data {
		switch f {
		case random:
			data[i] = byte(rng.Uint32())
		case highest:
			data[i] = 0xff
		case lowest:
			data[i] = 0x80
		}
	}
	putHalf := func(b []byte) {
		binary.LittleEndian.PutUint16(b, f16bits((rng.Float32()+0.5)*0.01*float32(1-2*int(rng.Uint32()&1))))
	}
	for b := data; len(b) > 0; b = b[k.srcBlock:] {
		switch typ {
		case weights.F32:
			binary.LittleEndian.PutUint32(b, math.Float32bits(float32(rng.NormFloat64())))
		case weights.F16:
			binary.LittleEndian.PutUint16(b, f16bits(float32(rng.NormFloat64())))
		case weights.BF16:
			binary.LittleEndian.PutUint16(b, uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
		case weights.Q4_0, weights.Q5_0, weights.Q8_0:
			putHalf(b)
		case weights.Q4_1, weights.Q5_1, weights.Q4_K, weights.Q5_K:
			putHalf(b)
			putHalf(b[2:])
		case weights.Q6_K:
			putHalf(b[208:])
			if f == highest {
				for i := 192; i < 208; i++ {
					b[i] = 0x80 // -128, the largest magnitude
				}
			}
		}
	}
	return weights.Tensor{Name: "w", Type: typ, Shape: []int{out, in}, Data: data}
}

// dequantise returns the exact values of a tensor, written from ggml's
// definition of the formats, weight by weight; and, of the K formats, the minima
// in them.
func dequantise(t weights.Tensor) (values, minima []float64) {
	f16 := func(b []byte) float64 {
		h := binary.LittleEndian.Uint16(b)
		v := math.Ldexp(float64(h&1023)+1024, int(h>>10&31)-25)
		if h>>10&31 == 0 {
			v = math.Ldexp(float64(h&1023), -24)
		}
		if h>>15 == 1 {
			v = -v
		}
		return v
	}
	n := t.Shape[0] * t.Shape[1]
	out, minima := make([]float64, n), make([]float64, n)
	k := kinds[t.Type]
	for i := range out {
		b := t.Data[i/k.srcCols*k.srcBlock:]
		j := i % k.srcCols
		nibble := func(qs []byte) int { // of the 32-blocks
			if j < 16 {
				return int(qs[j] & 15)
			}
			return int(qs[j-16] >> 4)
		}
		fifth := func(qh []byte) int { return int(binary.LittleEndian.Uint32(qh)>>j&1) << 4 }
		switch t.Type {
		case weights.F32:
			out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		case weights.F16:
			out[i] = f16(b)
		case weights.BF16:
			out[i] = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
		case weights.Q4_0:
			out[i] = f16(b) * float64(nibble(b[2:])-8)
		case weights.Q4_1:
			out[i] = f16(b)*float64(nibble(b[4:])) + f16(b[2:])
		case weights.Q5_0:
			out[i] = f16(b) * float64(nibble(b[6:])+fifth(b[2:])-16)
		case weights.Q5_1:
			out[i] = f16(b)*float64(nibble(b[8:])+fifth(b[4:])) + f16(b[2:])
		case weights.Q8_0:
			out[i] = f16(b) * float64(int8(b[2+j]))
		case weights.Q4_K, weights.Q5_K:
			s, g := b[4:16], j/32
			var sc, m int
			if g < 4 {
				sc, m = int(s[g]%64), int(s[g+4]%64)
			} else {
				sc = int(s[g+4]%16) + int(s[g-4]/64)*16
				m = int(s[g+4]/16) + int(s[g]/64)*16
			}
			qs := b[16:]
			var q int
			if t.Type == weights.Q5_K {
				qs = b[48:]
				q = int(b[16+j%32]>>g&1) * 16
			}
			if v := qs[j/64*32+j%32]; g%2 == 0 {
				q += int(v % 16)
			} else {
				q += int(v / 16)
			}
			minima[i] = f16(b[2:]) * float64(m)
			out[i] = f16(b)*float64(sc*q) - minima[i]
		case weights.Q6_K:
			half, l := j/128, j%32
			ql, qh := b[64*half:], b[128+32*half:]
			var q int
			switch j % 128 / 32 {
			case 0:
				q = int(ql[l]&15) | int(qh[l]&3)<<4
			case 1:
				q = int(ql[l+32]&15) | int(qh[l]>>2&3)<<4
			case 2:
				q = int(ql[l]>>4) | int(qh[l]>>4&3)<<4
			case 3:
				q = int(ql[l+32]>>4) | int(qh[l]>>6&3)<<4
			}
			out[i] = f16(b[208:]) * float64(int8(b[192+j/16])) * float64(q-32)
		}
	}
	return out, minima
}

// newActivations returns rows of normal values; extreme rows have the codes
// +127 and -127 only.
func newActivations(rng *rand.Rand, rows, cols int, extreme bool) *Activations {
	a := new(Activations)
	a.Resize(rows, cols)
	for i := range rows {
		x := a.Row(i)
		for j := range x {
			x[j] = float32(rng.NormFloat64())
			if extreme {
				x[j] = float32(1 - 2*(i%2)) // all of a row of one sign
			}
		}
		a.Quantize(i)
	}
	return a
}

// values returns row i as the kernels of t see it: codes times scales, or the
// float32 values.
func (a *Activations) values(i int, t weights.Type) []float64 {
	out := make([]float64, a.cols)
	for j, v := range a.Row(i) {
		out[j] = float64(v)
		if kinds[t].quantised() {
			b := &a.blocks(i)[j/blockCols]
			out[j] = float64(b.codes[j%blockCols]) * float64(b.scale)
		}
	}
	return out
}
