package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
)

// variants are the instruction sets to test on this processor.
func variants() []isa.ISA {
	v := []isa.ISA{isa.Generic}
	if isa.AVX2.Available() {
		v = append(v, isa.AVX2)
	}
	return v
}

func forEachISA(t *testing.T, f func(t *testing.T, o Ops)) {
	for _, set := range variants() {
		t.Run(set.String(), func(t *testing.T) { f(t, For(set)) })
	}
}

func random(seed uint64, n int, scale float64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * scale)
	}
	return x
}

// lengths covers no vector, part of one, whole ones, and a remainder.
var lengths = []int{1, 3, 7, 8, 9, 31, 32, 33, 64, 100, 576, 1536}

// ulp is the distance between floats at x, at least that of the subnormals.
func ulp(x float64) float64 {
	_, e := math.Frexp(x)
	return math.Ldexp(1, max(e-24, -149))
}

func TestRMSNormMatchesFloat64(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, n := range lengths {
			x, w := random(uint64(n), n, 3), random(uint64(n)+1000, n, 1)
			var sum float64
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			scale := 1 / math.Sqrt(sum/float64(n)+1e-5)
			dst := make([]float32, n)
			o.RMSNorm(dst, x, w, 1e-5)
			for i := range dst {
				want := float64(x[i]) * scale * float64(w[i])
				// A sum of n positive float32 terms is off by at most n*2^-24,
				// its root by half of that; three roundings follow.
				tolerance := math.Abs(want) * (float64(n)/2 + 3) * 0x1p-24
				if math.Abs(float64(dst[i])-want) > tolerance {
					t.Fatalf("n=%d: dst[%d] = %v, want %v", n, i, dst[i], want)
				}
			}
		}
	})
}

func TestRMSNormInPlace(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		x, w := random(1, 579, 1), random(2, 579, 1)
		want := make([]float32, len(x))
		o.RMSNorm(want, x, w, 1e-6)
		o.RMSNorm(x, x, w, 1e-6)
		if !slices.Equal(x, want) {
			t.Error("in place the result differs")
		}
	})
}

func TestScaledExpIsWithinTwoUlp(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		var x []float32
		for v := -110.0; v < 95; v += 0.00037 {
			x = append(x, float32(v))
		}
		x = append(x, 0, float32(math.Copysign(0, -1)), 1e-30, -1e-30, 88.72283, -87.33655, -103.97207)
		dst := make([]float32, len(x))
		o.ScaledExp(dst, x, 1, 0)
		worst, at := 0.0, float32(0)
		for i, v := range x {
			want := math.Exp(float64(v))
			if float32(want) > math.MaxFloat32 {
				if !math.IsInf(float64(dst[i]), 1) {
					t.Fatalf("exp(%v) = %v, want +Inf", v, dst[i])
				}
				continue
			}
			if e := math.Abs(float64(dst[i])-want) / ulp(want); e > worst {
				worst, at = e, v
			}
		}
		t.Logf("largest error: %.3f ulp at %v", worst, at)
		if worst > 2 {
			t.Errorf("the error is %.2f ulp at %v", worst, at)
		}
	})
}

func TestScaledExpSpecialValues(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		inf := float32(math.Inf(1))
		x := []float32{inf, -inf, float32(math.NaN()), 1000, -1000, 0, 3, 5}
		o.ScaledExp(x, x, 1, 0)
		if x[0] != inf || x[1] != 0 || x[2] == x[2] || x[3] != inf || x[4] != 0 || x[5] != 1 {
			t.Errorf("exp of +Inf, -Inf, NaN, 1000, -1000, 0 is %v", x[:6])
		}
	})
}

func TestScaledExpAppliesShiftThenScale(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, n := range lengths {
			x := random(uint64(n), n, 4)
			dst := make([]float32, n)
			o.ScaledExp(dst, x, 0.7, 9)
			for i := range x {
				arg := float64((x[i] - 9) * 0.7)
				if want := math.Exp(arg); math.Abs(float64(dst[i])-want) > 2*ulp(want) {
					t.Fatalf("n=%d: exp((%v-9)*0.7) = %v, want %v", n, x[i], dst[i], want)
				}
			}
		}
	})
}

func TestSiLUMulMatchesFloat64(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, n := range lengths {
			gate, up := random(uint64(n), n, 8), random(uint64(n)+7, n, 2)
			if n > 8 {
				gate[0], gate[1], gate[2], gate[n-1] = -87, 87, 0, -20
			}
			dst := make([]float32, n)
			o.SiLUMul(dst, gate, up)
			for i := range dst {
				g := float64(gate[i])
				want := g / (1 + math.Exp(-g)) * float64(up[i])
				// exp is off by 2 ulp; the sum, the quotient and the product
				// round once each.
				if math.Abs(float64(dst[i])-want) > 5*ulp(want) {
					t.Fatalf("n=%d: silu(%v)*%v = %v, want %v", n, g, up[i], dst[i], want)
				}
			}
		}
	})
}

func TestAddIsExact(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, n := range lengths {
			a, b := random(uint64(n), n, 1), random(uint64(n)+1, n, 1)
			want := make([]float32, n)
			for i := range a {
				want[i] = a[i] + b[i]
			}
			o.Add(a, b)
			if !slices.Equal(a, want) {
				t.Errorf("n=%d: the sum differs", n)
			}
		}
	})
}

// A row must come out the same wherever it lies in memory, and an element
// wherever it lies in a row.
func TestBitsDoNotDependOnPlace(t *testing.T) {
	elementwise := map[string]func(o Ops, dst, x []float32){
		"exp":  func(o Ops, dst, x []float32) { o.ScaledExp(dst, x, 1, 1) },
		"silu": func(o Ops, dst, x []float32) { o.SiLUMul(dst, x, x) },
		"add":  func(o Ops, dst, x []float32) { copy(dst, x); o.Add(dst, x) },
	}
	forEachISA(t, func(t *testing.T, o Ops) {
		x := random(5, 200, 5)
		for name, f := range elementwise {
			want := make([]float32, len(x))
			f(o, want, x)
			for from := range 20 {
				for _, n := range lengths[:9] {
					got := make([]float32, n)
					f(o, got, x[from:from+n])
					if !slices.Equal(got, want[from:from+n]) {
						t.Errorf("%s of elements %d to %d differs from the whole slice's", name, from, from+n)
					}
				}
			}
		}
		for _, n := range lengths[:9] {
			row, w := random(6, n, 1), random(7, n, 1)
			want := make([]float32, n)
			o.RMSNorm(want, row, w, 1e-5)
			for shift := range 9 {
				buffer := append(make([]float32, shift), row...)
				got := make([]float32, n)
				o.RMSNorm(got, buffer[shift:], w, 1e-5)
				if !slices.Equal(got, want) {
					t.Errorf("RMSNorm of a row of %d at offset %d differs", n, shift)
				}
			}
		}
	})
}

func TestGenericAndAVX2Agree(t *testing.T) {
	if !isa.AVX2.Available() {
		t.Skip("this processor has no AVX2")
	}
	g, v := For(isa.Generic), For(isa.AVX2)
	for _, n := range lengths {
		x, w := random(1, n, 2), random(2, n, 2)
		a, b := make([]float32, n), make([]float32, n)
		check := func(name string, ulps float64) {
			t.Helper()
			for i := range a {
				if math.Abs(float64(a[i])-float64(b[i])) > ulps*ulp(float64(a[i])) {
					t.Errorf("%s, n=%d: element %d is %v in Go and %v in assembly", name, n, i, a[i], b[i])
				}
			}
		}
		g.ScaledExp(a, x, 1, 0)
		v.ScaledExp(b, x, 1, 0)
		check("exp", 2)
		g.SiLUMul(a, x, w)
		v.SiLUMul(b, x, w)
		check("silu", 5)
		g.RMSNorm(a, x, w, 1e-5)
		v.RMSNorm(b, x, w, 1e-5)
		check("rmsnorm", float64(n)/2+3)
	}
}

func BenchmarkOps(b *testing.B) {
	for _, set := range variants() {
		o := For(set)
		x, w, dst := random(1, 1536, 1), random(2, 1536, 1), make([]float32, 1536)
		for _, bench := range []struct {
			name    string
			streams int
			f       func()
		}{
			{"rmsnorm", 3, func() { o.RMSNorm(dst, x, w, 1e-5) }},
			{"silu", 3, func() { o.SiLUMul(dst, x, w) }},
			{"exp", 2, func() { o.ScaledExp(dst, x, 1, 0) }},
			{"add", 3, func() { o.Add(dst, x) }},
		} {
			b.Run(fmt.Sprintf("%s/%v", bench.name, set), func(b *testing.B) {
				b.SetBytes(int64(4 * bench.streams * len(x)))
				for b.Loop() {
					bench.f()
				}
			})
		}
	}
}
