package matmul

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
)

// Matrix is a weight matrix [rows, cols], packed for one instruction set. It is
// immutable: any number of goroutines may multiply by it.
type Matrix struct {
	kind       *kind
	isa        isa.ISA
	rows, cols int
	tileBytes  int
	data       []byte
}

// Rows returns the number of output rows.
func (m *Matrix) Rows() int { return m.rows }

// Cols returns the number of columns: the length of an activation row.
func (m *Matrix) Cols() int { return m.cols }

// Bytes returns the memory that the packed weights take.
func (m *Matrix) Bytes() int { return len(m.data) }

// Quantised reports whether the products use the activations' codes; otherwise
// they use their float32 values.
func (m *Matrix) Quantised() bool { return m.kind.quantised() }

// TileRows is the number of output rows of a tile.
const TileRows = tileRows

// Tiles returns the number of tiles, the units of a parallel split: tile t
// holds the output rows from 16*t on.
func (m *Matrix) Tiles() int { return (m.rows + tileRows - 1) / tileRows }

const (
	// maxRows is the largest number of activation rows that a kernel call takes.
	maxRows = 32
	// manyCols is how many columns maxRows rows may have. Longer rows lie so far
	// apart that the blocks of all of them compete for few sets of the L1 cache.
	manyCols = 4096
	// l1Bytes is how much weight memory is multiplied by all rows of a block of
	// activations before the next is fetched: half of a 32 KiB L1 cache.
	l1Bytes = 16 << 10
	// l2Bytes is the size of a block of activations: it stays in a 512 KiB L2
	// cache while the weights stream past.
	l2Bytes = 192 << 10
)

// Mul computes dst[i*stride+n] = sum over k of a[i][k]*m[n][k] for the
// activation rows row0 <= i < row1 and the output rows n of the tiles
// tile0 <= t < tile1, and writes nothing else. It does not allocate. Calls with
// disjoint ranges may run at once. Like an index, a range outside of the
// operands panics.
//
// The bits of an output depend on its activation row and its weight row alone,
// not on the ranges: each kernel adds up the blocks of 32 columns (of float
// weights, the columns) in the same order. AVX2 and AVX-512 round at the same
// places, so they agree too.
func (m *Matrix) Mul(dst []float32, stride int, a *Activations, row0, row1, tile0, tile1 int) {
	if row0 >= row1 || tile0 >= tile1 {
		return
	}
	if a.cols != m.cols || row0 < 0 || row1 > a.rows || tile0 < 0 || tile1 > m.Tiles() || stride < m.rows {
		panic(fmt.Sprintf("matmul: rows [%d:%d] and tiles [%d:%d] of %dx%d by %dx%d, stride %d",
			row0, row1, tile0, tile1, a.rows, a.cols, m.rows, m.cols, stride))
	}
	_ = dst[(row1-1)*stride+min(tile1*tileRows, m.rows)-1]
	step := max(1, l1Bytes/m.tileBytes)
	if n := row1 - row0; n == m.rowsPerCall(n) {
		step = tile1 - tile0 // each weight is used once
	}
	unit := m.rowsPerCall(maxRows)
	block := max(1, l2Bytes/m.rowBytes()/unit) * unit
	for r0 := row0; r0 < row1; r0 += block {
		r1 := min(r0+block, row1)
		for t := tile0; t < tile1; t += step {
			end := min(t+step, tile1)
			for r := r0; r < r1; {
				n := m.rowsPerCall(r1 - r)
				m.mul(dst[r*stride:], stride, a, r, n, t, end)
				r += n
			}
		}
	}
}

// rowsPerCall returns how many of n activation rows the next kernel call takes: a
// power of two, at most maxRows.
func (m *Matrix) rowsPerCall(n int) int {
	most := 4
	switch {
	case m.isa == isa.AVX512:
		most = 8 // twice the registers
	case m.isa == isa.AVX2 && m.kind.unpacked() && m.cols <= manyCols:
		most = maxRows
	case m.isa == isa.AVX2 && m.kind.unpacked():
		most = maxRows / 2
	}
	for most > n {
		most /= 2
	}
	return most
}

// mul multiplies rows activation rows, a number that rowsPerCall returns, from row
// on by the tiles [t0, t1).
func (m *Matrix) mul(dst []float32, stride int, a *Activations, row, rows, t0, t1 int) {
	full := min(t1, m.rows/tileRows)
	if t0 < full {
		m.kernel(&dst[t0*tileRows], stride, a, row, rows, t0, full-t0)
	}
	if full < t1 {
		// The last tile is padded: compute it aside and copy what exists.
		var aside [maxRows * tileRows]float32
		m.kernel(&aside[0], tileRows, a, row, rows, full, 1)
		for r := range rows {
			copy(dst[r*stride+full*tileRows:][:m.rows-full*tileRows], aside[r*tileRows:])
		}
	}
}

// tile returns where tile t begins.
func (m *Matrix) tile(t int) *byte { return &m.data[t*m.tileBytes] }

// rowBytes returns the size of what is multiplied of an activation row.
func (m *Matrix) rowBytes() int {
	if m.kind.quantised() {
		return m.cols / blockCols * xblockBytes
	}
	return 4 * m.cols
}
