package matmul

import (
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
)

//go:generate go run gen.go gen_avx2.go gen_avx2_rows.go gen_avx512.go gen_float.go

// kernel multiplies rows activation rows (a power of two, as rowsPerCall says) by
// whole tiles and writes 16 outputs a row and tile to dst, rows stride elements
// apart.
func (m *Matrix) kernel(dst *float32, stride int, a *Activations, row, rows, t0, tiles int) {
	switch m.isa {
	case isa.AVX512:
		m.kernelAVX512(dst, 4*stride, a, row, rows, t0, tiles)
	case isa.AVX2:
		m.kernelAVX2(dst, 4*stride, a, row, rows, t0, tiles)
	default:
		mulGeneric(m, unsafe.Slice(dst, (rows-1)*stride+tiles*tileRows), stride, a, row, rows, t0, tiles)
	}
}

func quantize(q []xblock, x []float32) {
	if isa.AVX2.Available() {
		quantizeAVX2(&q[0], unsafe.SliceData(x), len(q))
		return
	}
	quantizeGeneric(q, x)
}

//go:noescape
func quantizeAVX2(q *xblock, x *float32, blocks int)
