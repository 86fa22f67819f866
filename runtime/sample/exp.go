package sample

import "math"

// expSteps is the number of entries of the table of 2^(j/expSteps). With 32 the
// remaining polynomial has degree 3.
const expSteps = 32

var expTable = func() (t [expSteps]float32) {
	for j := range t {
		t[j] = float32(math.Exp2(float64(j) / expSteps))
	}
	return t
}()

// exp32 returns e^x for -87 < x <= 0 with a relative error below 3e-7.
//
// With n = 32*k + j the integer nearest to x*32/ln 2 it is 2^k * 2^(j/32) * e^r,
// where |r| <= ln(2)/64 and e^r is the Taylor polynomial of degree 3, whose
// remainder is below (ln(2)/64)^4/4! = 6e-10.
func exp32(x float32) float32 {
	const (
		magic = 3 << 22 // rounds to the nearest integer when added
		// ln(2)/32 in two parts: the first has 11 bits, so n*stepHi is exact.
		stepHi = 1419.0 / 65536
		stepLo = math.Ln2/expSteps - stepHi
	)
	m := x*(expSteps/math.Ln2) + magic
	n := m - magic
	r := x - n*stepHi - n*stepLo
	b := math.Float32bits(m) // its low bits hold n in two's complement
	e := expTable[b%expSteps] * (1 + r*(1+r*(0.5+r*(1.0/6))))
	return math.Float32frombits(math.Float32bits(e) + b/expSteps<<23)
}
