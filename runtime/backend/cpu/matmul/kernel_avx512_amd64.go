package matmul

import "github.com/moaserve/moaserve/runtime/weights"

// The switch is not a table of functions: through a function value the pointers
// would escape, and Mul's buffer for the last tile would be allocated.
func (m *Matrix) kernelAVX512(dst *float32, stride int, a *Activations, row, rows, t0, tiles int) {
	w, xstride, blocks := m.tile(t0), m.rowBytes(), m.cols/blockCols
	switch m.kind.typ {
	case weights.Q4_0:
		q40AVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.Q4_1:
		q41AVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.Q5_0:
		q50AVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.Q5_1:
		q51AVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.Q8_0:
		q80AVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.Q4_K:
		q4kAVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.Q5_K:
		q5kAVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.Q6_K:
		q6kAVX512(dst, stride, w, &a.q[row*blocks], xstride, blocks, rows, tiles)
	case weights.F32:
		f32AVX512(dst, stride, w, &a.x[row*m.cols], xstride, blocks, rows, tiles)
	case weights.F16:
		f16AVX512(dst, stride, w, &a.x[row*m.cols], xstride, blocks, rows, tiles)
	case weights.BF16:
		bf16AVX512(dst, stride, w, &a.x[row*m.cols], xstride, blocks, rows, tiles)
	}
}

// The kernels take strides in bytes. w is a tile, x a row of activations.

//go:noescape
func q40AVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func q41AVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func q50AVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func q51AVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func q80AVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func q4kAVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func q5kAVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func q6kAVX512(dst *float32, stride int, w *byte, x *xblock, xstride, blocks, rows, tiles int)

//go:noescape
func f32AVX512(dst *float32, stride int, w *byte, x *float32, xstride, blocks, rows, tiles int)

//go:noescape
func f16AVX512(dst *float32, stride int, w *byte, x *float32, xstride, blocks, rows, tiles int)

//go:noescape
func bf16AVX512(dst *float32, stride int, w *byte, x *float32, xstride, blocks, rows, tiles int)
