package matmul

import (
	"math"
	"unsafe"
)

// Activations is a matrix of activations [rows, cols], as float32 and quantised:
// int8 codes with a float32 scale for each 32 columns. The zero value is empty.
//
// Different rows may be written by different goroutines at once. Resize must not
// run together with anything else.
type Activations struct {
	rows, cols int
	x          []float32
	q          []xblock
}

// xblock is 32 quantised activations. The assembly knows its layout.
type xblock struct {
	// codes are in -127..127, so that no 16-bit sum of the kernels overflows.
	codes [blockCols]int8
	// scale times a code is the activation.
	scale float32
	// sum of the codes: the factor of a weight block's minimum.
	sum float32
	// halves are the sums of codes 0-15 and 16-31, for Q6_K's scales of 16.
	halves [2]int16
}

const xblockBytes = int(unsafe.Sizeof(xblock{}))

// tinyScale is the magnitude below which a block counts as zero: the reciprocal
// of its scale would overflow near 2^-121.
const tinyScale = 0x1p-100

// Resize sets the shape and keeps the memory when it suffices. The contents are
// undefined afterwards. cols must be a multiple of 32.
func (a *Activations) Resize(rows, cols int) {
	a.rows, a.cols = rows, cols
	if n := rows * cols; n > cap(a.x) {
		a.x = make([]float32, n)
		a.q = make([]xblock, n/blockCols)
	}
	a.x = a.x[:rows*cols]
	a.q = a.q[:rows*cols/blockCols]
}

// Rows returns the number of rows.
func (a *Activations) Rows() int { return a.rows }

// Cols returns the number of columns.
func (a *Activations) Cols() int { return a.cols }

// Row returns row i, to be filled in place and followed by Quantize(i).
func (a *Activations) Row(i int) []float32 {
	return a.x[i*a.cols : (i+1)*a.cols : (i+1)*a.cols]
}

// Set copies x, of Cols values, to row i and quantises it.
func (a *Activations) Set(i int, x []float32) {
	copy(a.Row(i), x)
	a.Quantize(i)
}

// Quantize computes the codes of row i from its float32 values. Codes are
// rounded to nearest even with scale absmax/127. A block with a NaN or an
// infinity gets a NaN or infinite scale, so that the products show it.
func (a *Activations) Quantize(i int) {
	n := a.cols / blockCols
	if n == 0 {
		return
	}
	quantize(a.q[i*n:(i+1)*n], a.Row(i))
}

// QuantizeResidual fills row i with what the codes of row of miss of its values
// and quantises that. The product of both rows, added up, then has the precision
// of 16-bit activations: the residual of a block is at most half a step of its
// scale, and is divided into 254 steps itself.
func (a *Activations) QuantizeResidual(i, of int) {
	residual, x := a.Row(i), a.Row(of)
	n := a.cols / blockCols
	for b, blk := range a.q[of*n : (of+1)*n] {
		for j, c := range blk.codes {
			k := b*blockCols + j
			residual[k] = x[k] - blk.scale*float32(c)
		}
	}
	a.Quantize(i)
}

// blocks returns the quantised rows from i on.
func (a *Activations) blocks(i int) []xblock { return a.q[i*(a.cols/blockCols):] }

// quantizeGeneric is the plain Go version. It gives the same bits as the
// assembly.
func quantizeGeneric(q []xblock, x []float32) {
	for b := range q {
		xb := x[b*blockCols:][:blockCols]
		// The order of the bit patterns is the order of the magnitudes, with
		// NaN above all.
		var top uint32
		for _, v := range xb {
			top = max(top, math.Float32bits(v)&^(1<<31))
		}
		absmax := math.Float32frombits(top)
		var inverse float32
		if absmax < tinyScale {
			absmax = 0
		} else {
			inverse = 127 / absmax
		}
		blk := &q[b]
		blk.scale = absmax / 127
		var halves [2]int16
		for j, v := range xb {
			c := roundCode(float32(v * inverse))
			blk.codes[j] = c
			halves[j/16] += int16(c)
		}
		blk.halves = halves
		blk.sum = float32(halves[0]) + float32(halves[1])
	}
}

// roundCode rounds to nearest even. Adding 1.5*2^23 leaves the integer in the
// low bits of the significand. What is not a number becomes -128, as it does in
// the assembly.
func roundCode(v float32) int8 {
	if v != v {
		return -128
	}
	return int8(math.Float32bits(v+0x1.8p23) & 0xff)
}
