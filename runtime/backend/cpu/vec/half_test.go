package vec

import (
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime/weights"
)

// f16Value is the definition of binary16, in float64.
func f16Value(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	exponent, fraction := int(h>>10&0x1f), float64(h&0x3ff)
	switch {
	case exponent == 0x1f && fraction != 0:
		return math.NaN()
	case exponent == 0x1f:
		return sign * math.Inf(1)
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

func same(a, b float64) bool {
	return a == b && math.Signbit(a) == math.Signbit(b) || math.IsNaN(a) && math.IsNaN(b)
}

func TestFrom16CoversEveryPattern(t *testing.T) {
	src := make([]uint16, 1<<16)
	for i := range src {
		src[i] = uint16(i)
	}
	dst := make([]float32, len(src))
	forEachISA(t, func(t *testing.T, o Ops) {
		o.FromF16(dst, src)
		for i, v := range dst {
			if !same(float64(v), f16Value(src[i])) {
				t.Fatalf("f16 %#04x is %v, want %v", i, v, f16Value(src[i]))
			}
		}
		o.FromBF16(dst, src)
		for i, v := range dst {
			if math.Float32bits(v) != uint32(i)<<16 {
				t.Fatalf("bf16 %#04x is %#08x", i, math.Float32bits(v))
			}
		}
	})
}

// Every finite pattern, the midpoint above it and both neighbours of the
// midpoint cover every rounding decision.
func TestTo16RoundsToNearestEven(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, format := range []struct {
			name     string
			convert  func([]uint16, []float32)
			value    func(uint16) float64
			infinity int
		}{
			{"f16", o.ToF16, f16Value, 0x7c00},
			{"bf16", o.ToBF16, func(b uint16) float64 { return float64(weights.BF16ToFloat32(b)) }, 0x7f80},
		} {
			var src []float32
			var want []uint16
			add := func(v float32, bits int) {
				src = append(src, v, -v)
				want = append(want, uint16(bits), uint16(bits)|0x8000)
			}
			for i := range format.infinity - 1 {
				low, high := format.value(uint16(i)), format.value(uint16(i+1))
				middle := float32((low + high) / 2)
				add(float32(low), i)
				add(middle, i+i&1)
				add(math.Nextafter32(middle, 0), i)
				add(math.Nextafter32(middle, float32(math.Inf(1))), i+1)
			}
			largest := format.infinity - 1
			for _, v := range []float64{format.value(uint16(largest)), math.MaxFloat32, math.Inf(1)} {
				add(float32(v), largest)
			}
			got := make([]uint16, len(src))
			format.convert(got, src)
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("%s of %v (%#08x) is %#04x, want %#04x", format.name, src[i], math.Float32bits(src[i]), got[i], want[i])
				}
			}
			nan := make([]float32, 11)
			for i := range nan {
				nan[i] = float32(math.NaN())
			}
			nan[3] = math.Float32frombits(0xff800001)
			got = got[:len(nan)]
			format.convert(got, nan)
			for i, h := range got {
				if !math.IsNaN(format.value(h)) {
					t.Errorf("%s of NaN %d is %#04x", format.name, i, h)
				}
			}
		}
	})
}
