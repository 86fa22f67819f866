//go:build !amd64

package matmul

import "unsafe"

// kernel multiplies rows activation rows (1, 2 or 4) by whole tiles and
// writes 16 outputs a row and tile to dst, rows stride elements apart.
func (m *Matrix) kernel(dst *float32, stride int, a *Activations, row, rows, t0, tiles int) {
	mulGeneric(m, unsafe.Slice(dst, (rows-1)*stride+tiles*tileRows), stride, a, row, rows, t0, tiles)
}

func quantize(q []xblock, x []float32) { quantizeGeneric(q, x) }
