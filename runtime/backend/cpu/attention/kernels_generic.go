package attention

import (
	"math"
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
)

// genericKernels are plain Go, for processors without AVX2.
var genericKernels = kernels{
	f32:     &products{nil, rowsOf(1), rowsOf(2), rowsOf(3), rowsOf(4), rowsOf(5), rowsOf(6)},
	softmax: genericSoftmax,
	merge:   genericMerge,
	scale:   genericScale,

	widenKeys:   genericWidenKeys,
	widenValues: genericWidenValues,
}

func rowsOf(rows int) func(*product) {
	return func(p *product) {
		for r := range rows {
			genericProductRow(p, r)
		}
	}
}

// at returns n floats from offset bytes after p.
func at(p *float32, offset, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), offset)), n)
}

func genericProductRow(p *product, r int) {
	a := at(p.a, r*p.lda, p.k)
	c := at(p.c, r*p.ldc, p.panels*panelWidth)
	scale := float32(0)
	if p.scale != nil {
		scale = at(p.scale, 4*r, 1)[0]
	}
	for i := range p.panels {
		b := at((*float32)(p.b), i*p.panelBytes, p.k*panelWidth)
		for half := 0; half < panelWidth; half += panelWidth / 2 {
			to := (*[panelWidth / 2]float32)(c[i*panelWidth+half:])
			if p.scale == nil {
				*to = [panelWidth / 2]float32{}
			} else {
				for j := range to {
					to[j] *= scale
				}
			}
			genericHalfPanel(to, a, b[half:])
		}
	}
}

// genericHalfPanel adds a product with half a panel. Named variables stay in
// registers; an array would not.
func genericHalfPanel(c *[panelWidth / 2]float32, a, b []float32) {
	c0, c1, c2, c3, c4, c5, c6, c7 := c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
	for i, x := range a {
		step := (*[panelWidth / 2]float32)(b[i*panelWidth:])
		c0 += x * step[0]
		c1 += x * step[1]
		c2 += x * step[2]
		c3 += x * step[3]
		c4 += x * step[4]
		c5 += x * step[5]
		c6 += x * step[6]
		c7 += x * step[7]
	}
	*c = [panelWidth / 2]float32{c0, c1, c2, c3, c4, c5, c6, c7}
}

func genericWidenKeys(dst *float32, codes *int8, scales *uint16, k int) {
	to, from := at(dst, 0, k*panelWidth), unsafe.Slice(codes, k*panelWidth)
	half := unsafe.Slice(scales, (k/vec.Q8Block-1)*pageTokens+panelWidth)
	var scale [panelWidth]float32
	for i := 0; i < len(to); i += panelWidth {
		if step := i / panelWidth; step%vec.Q8Block == 0 {
			vec.Ops{}.FromF16(scale[:], half[step/vec.Q8Block*pageTokens:][:panelWidth])
		}
		row, code := (*[panelWidth]float32)(to[i:]), (*[panelWidth]int8)(from[i:])
		for j := range row {
			row[j] = float32(code[j]) * scale[j]
		}
	}
}

func genericWidenValues(dst *float32, codes *int8, scales *uint16) {
	to, from := at(dst, 0, valuePanel), unsafe.Slice(codes, valuePanel)
	var scale [pageTokens]float32
	vec.Ops{}.FromF16(scale[:], unsafe.Slice(scales, pageTokens))
	for i, s := range scale {
		row, code := (*[panelWidth]float32)(to[i*panelWidth:]), (*[panelWidth]int8)(from[i*panelWidth:])
		for j := range row {
			row[j] = float32(code[j]) * s
		}
	}
}

func genericSoftmax(x *softmax) {
	m, l, corr := at(x.m, 0, x.rows), at(x.l, 0, x.rows), at(x.corr, 0, x.rows)
	for r := range x.rows {
		s := at(x.s, r*pageTokens*4, pageTokens)
		top := m[r]
		for _, v := range s[:x.n] {
			top = max(top, v)
		}
		corr[r] = exp2(m[r] - top)
		sum := float32(0)
		for i, v := range s[:x.n] {
			s[i] = exp2(v - top)
			sum += s[i]
		}
		clear(s[x.n:])
		m[r], l[r] = top, l[r]*corr[r]+sum
	}
}

func genericMerge(x *merge) {
	m, l := at(x.m, 0, x.rows), at(x.l, 0, x.rows)
	mr, lr := at(x.mr, 0, x.rows), at(x.lr, 0, x.rows)
	for r := range x.rows {
		top := max(m[r], mr[r])
		a, b := exp2(m[r]-top), exp2(mr[r]-top)
		m[r], l[r] = top, l[r]*a+lr[r]*b
		dst, src := at(x.dst, r*x.cols*4, x.cols), at(x.src, r*x.cols*4, x.cols)
		for i := range dst {
			dst[i] = dst[i]*a + src[i]*b
		}
	}
}

func genericScale(dst, src *float32, n int, s float32) {
	from, to := at(src, 0, n), at(dst, 0, n)
	for i, v := range from {
		to[i] = v*s + 0
	}
}

// exp2 returns 2^x for x <= 0, and 0 below -126.5, by the polynomial of the
// assembly: math.Exp2 is five times slower.
func exp2(x float32) float32 {
	const magic = 1.5*(1<<23) + 127
	if x < -127 {
		return 0
	}
	n := x + magic // n+127 in the low bits, rounded
	f := x - (n - magic)
	p := float32(0.0013264727)
	p = p*f + 0.009671513
	p = p*f + 0.055507336
	p = p*f + 0.24022242
	p = p*f + 0.693147
	p = p*f + 1
	return p * math.Float32frombits(math.Float32bits(n)<<23)
}
