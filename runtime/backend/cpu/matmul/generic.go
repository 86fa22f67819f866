package matmul

import (
	"encoding/binary"
	"math"

	"github.com/moaserve/moaserve/runtime/weights"
)

// The plain Go kernels compute what the assembly computes, in the same order:
//
//	t   = scale*dot + minimum*sum   one rounding, dot and sum exact integers
//	acc = acc + t*activation scale  one rounding, block after block
//
// The assembly uses fused multiply-adds; here float64 stands in for them, whose
// second rounding changes the last bit of a float32 about once in 2^29 times.

// mulGeneric is the kernel of every kind. dst and xstride are as for the
// assembly, but strides count elements.
func mulGeneric(m *Matrix, dst []float32, stride int, a *Activations, row, rows, t0, tiles int) {
	for t := range tiles {
		tile := m.data[(t0+t)*m.tileBytes:][:m.tileBytes]
		for r := range rows {
			out := (*[tileRows]float32)(dst[r*stride+t*tileRows:])
			if m.kind.quantised() {
				tileGeneric(m.kind, out, tile, a.blocks(row + r)[:m.cols/blockCols])
			} else {
				floatGeneric(m.kind, out, tile, a.Row(row+r))
			}
		}
	}
}

// tileGeneric multiplies a quantised tile by one row.
func tileGeneric(k *kind, out *[tileRows]float32, tile []byte, x []xblock) {
	var acc, scale, minimum [tileRows]float32
	var dot [tileRows]int32
	var header []byte
	for b := range x {
		if k.super && b%superBlocks == 0 {
			header, tile = tile[:k.header], tile[k.header:]
		}
		blk := tile[:k.block]
		tile = tile[k.block:]
		blockScales(k, &scale, &minimum, header, blk[k.scales:])
		if k.bits == 6 {
			dotQ6K(k, &dot, blk, &x[b])
		} else {
			dotCodes(k, &dot, blk, &x[b])
		}
		for r := range acc {
			t := float32(math.FMA(float64(scale[r]), float64(dot[r]), float64(minimum[r]*x[b].sum)))
			acc[r] = float32(math.FMA(float64(t), float64(x[b].scale), float64(acc[r])))
		}
	}
	*out = acc
}

// blockScales decodes the scale and the minimum (signed so that it is added) of
// every row of a block. Those of Q6_K stay in its integer dot product.
func blockScales(k *kind, scale, minimum *[tileRows]float32, header, s []byte) {
	for r := range tileRows {
		switch {
		case k.bits == 6:
			scale[r], minimum[r] = half(header[2*r:]), 0
		case k.super:
			scale[r] = half(header[2*r:]) * float32(s[r])
			minimum[r] = -half(header[2*(tileRows+r):]) * float32(s[tileRows+r])
		case k.mins:
			scale[r], minimum[r] = half(s[2*r:]), half(s[2*(tileRows+r):])
		default:
			scale[r] = half(s[2*r:])
			minimum[r] = scale[r] * float32(-k.bias)
		}
	}
}

// dotCodes computes the integer dot products of a block's codes.
func dotCodes(k *kind, dot *[tileRows]int32, blk []byte, x *xblock) {
	for r := range tileRows {
		var sum int32
		for q := range 8 {
			for j := range 4 {
				sum += code(k, blk, r, q, j) * int32(x.codes[4*q+j])
			}
		}
		dot[r] = sum
	}
}

// dotQ6K computes the dot products with the integer scales of both halves
// applied and the bias taken off: at most 32*127*32*128 in magnitude, which
// float32 still holds exactly.
func dotQ6K(k *kind, dot *[tileRows]int32, blk []byte, x *xblock) {
	for r := range tileRows {
		var sum int32
		for h := range 2 {
			part := -int32(k.bias) * int32(x.halves[h])
			for q := 4 * h; q < 4*h+4; q++ {
				for j := range 4 {
					part += code(k, blk, r, q, j) * int32(x.codes[4*q+j])
				}
			}
			sum += part * int32(int8(blk[k.scales+h*tileRows+r]))
		}
		dot[r] = sum
	}
}

// code returns the code of row r and column 4*q+j.
func code(k *kind, blk []byte, r, q, j int) int32 {
	i := 4*r + j
	if k.bits == 8 {
		return int32(int8(blk[64*q+i]))
	}
	c := int32(blk[q/2*64+i]) >> (q % 2 * 4) & 15
	switch k.bits {
	case 5:
		c |= int32(blk[256+i]) >> q & 1 << 4
	case 6:
		c |= int32(blk[256+q/4*64+i]) >> (q % 4 * 2) & 3 << 4
	}
	return c
}

// floatGeneric multiplies a tile of floats by one row: a fused multiply-add a
// column, in order.
func floatGeneric(k *kind, out *[tileRows]float32, tile []byte, x []float32) {
	var acc [tileRows]float32
	size := k.srcBlock
	for c, v := range x {
		col := tile[c*tileRows*size:][:tileRows*size]
		for r := range acc {
			var w float32
			switch k.typ {
			case weights.F16:
				w = half(col[2*r:])
			case weights.BF16:
				w = math.Float32frombits(uint32(binary.LittleEndian.Uint16(col[2*r:])) << 16)
			default:
				w = math.Float32frombits(binary.LittleEndian.Uint32(col[4*r:]))
			}
			acc[r] = float32(math.FMA(float64(w), float64(v), float64(acc[r])))
		}
	}
	*out = acc
}

// half decodes an IEEE 754 binary16.
func half(b []byte) float32 {
	h := uint32(binary.LittleEndian.Uint16(b))
	sign, exponent, fraction := h>>15<<31, h>>10&31, h&1023
	switch exponent {
	case 0:
		f := float32(fraction) * 0x1p-24
		return math.Float32frombits(sign | math.Float32bits(f))
	case 31:
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	default:
		return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
	}
}
