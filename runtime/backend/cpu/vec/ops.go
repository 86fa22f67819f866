package vec

import (
	"math"

	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
)

// Ops are the element-wise kernels of one instruction set. The zero value is the
// plain Go implementation. An Ops is immutable; its methods may be called from
// any number of goroutines.
type Ops struct {
	avx2 bool
}

// For returns the kernels of an instruction set, or of the best one available
// when the processor lacks it.
func For(set isa.ISA) Ops { return Ops{avx2: set.Resolve() >= isa.AVX2} }

// lanes is the width of a vector. The last elements of a slice, fewer than a
// vector, pass through a buffer of this size, so that they go through the same
// instructions as all others.
const lanes = 8

// RMSNorm writes x / sqrt(mean(x*x) + eps) * weight to dst. All have the same
// length; dst may be x.
func (o Ops) RMSNorm(dst, x, weight []float32, eps float32) {
	if len(x) == 0 {
		return
	}
	mean := float64(o.sumSquares(x)) / float64(len(x))
	o.scaleMul(dst, x, weight, float32(1/math.Sqrt(mean+float64(eps))))
}

// sumSquares adds in an order that depends on the length only.
func (o Ops) sumSquares(x []float32) float32 {
	if !o.avx2 {
		return genericSumSquares(x)
	}
	n := len(x) &^ (lanes - 1)
	var tail [lanes]float32
	copy(tail[:], x[n:])
	return sumSquaresAVX2(&x[0], n, &tail)
}

// scaleMul writes x * scale * w to dst.
func (o Ops) scaleMul(dst, x, w []float32, scale float32) {
	x, w = x[:len(dst)], w[:len(dst)]
	if !o.avx2 {
		genericScaleMul(dst, x, w, scale)
		return
	}
	n := len(dst) &^ (lanes - 1)
	if n > 0 {
		scaleMulAVX2(&dst[0], &x[0], &w[0], n, scale)
	}
	if n < len(dst) {
		var d, a, b [lanes]float32
		copy(a[:], x[n:])
		copy(b[:], w[n:])
		scaleMulAVX2(&d[0], &a[0], &b[0], lanes, scale)
		copy(dst[n:], d[:])
	}
}

// SiLUMul writes gate/(1+exp(-gate)) * up to dst (SwiGLU's elementwise part).
// All have the same length; dst may be either of the others.
func (o Ops) SiLUMul(dst, gate, up []float32) {
	gate, up = gate[:len(dst)], up[:len(dst)]
	if !o.avx2 {
		genericSiLUMul(dst, gate, up)
		return
	}
	n := len(dst) &^ (lanes - 1)
	if n > 0 {
		siluMulAVX2(&dst[0], &gate[0], &up[0], n)
	}
	if n < len(dst) {
		var d, a, b [lanes]float32
		copy(a[:], gate[n:])
		copy(b[:], up[n:])
		siluMulAVX2(&d[0], &a[0], &b[0], lanes)
		copy(dst[n:], d[:])
	}
}

// Add adds x to dst. Both have the same length.
func (o Ops) Add(dst, x []float32) {
	x = x[:len(dst)]
	if !o.avx2 {
		genericAdd(dst, x)
		return
	}
	n := len(dst) &^ (lanes - 1)
	if n > 0 {
		addAVX2(&dst[0], &x[0], n)
	}
	genericAdd(dst[n:], x[n:]) // one rounding either way
}

// ScaledExp writes exp((x - shift) * scale) to dst, the numerator of a softmax
// with a temperature of 1/scale when shift is the largest element. Both have the
// same length; dst may be x. The error of exp itself is below 2 units in the
// last place, subnormal results included.
func (o Ops) ScaledExp(dst, x []float32, scale, shift float32) {
	x = x[:len(dst)]
	if !o.avx2 {
		genericScaledExp(dst, x, scale, shift)
		return
	}
	n := len(dst) &^ (lanes - 1)
	if n > 0 {
		scaledExpAVX2(&dst[0], &x[0], n, scale, shift)
	}
	if n < len(dst) {
		var d, a [lanes]float32
		copy(a[:], x[n:])
		scaledExpAVX2(&d[0], &a[0], lanes, scale, shift)
		copy(dst[n:], d[:])
	}
}
