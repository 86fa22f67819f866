package weightstest_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

// The grid of a block has about 2^bits steps over the range of its values. A
// rounded value is at most half a step away, and the step itself is rounded to
// 6 bits (K-quants' scales and minima) or 11 (binary16): one step in all covers
// both, and a slip in the packing is wrong by much more.
func TestQuantizedValuesAreWithinAStep(t *testing.T) {
	steps := map[weights.Type]float64{
		weights.F32: math.Inf(1), weights.F16: 1 << 11, weights.BF16: 1 << 8, weights.Q8_0: 254, weights.Q4_0: 14,
		weights.Q4_1: 15, weights.Q5_0: 30, weights.Q5_1: 31, weights.Q4_K: 15, weights.Q5_K: 31, weights.Q6_K: 62,
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, typ := range weights.Types() {
		for range 50 {
			x := make([]float32, 512)
			top := 0.0
			for i := range x {
				x[i] = float32(rng.NormFloat64()) + 0.3
				top = max(top, math.Abs(float64(x[i])))
			}
			stored, err := weightstest.Quantize(typ, x)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(x))
			if err := weights.Dequantize(got, typ, stored); err != nil {
				t.Fatal(err)
			}
			for i := range x {
				if e := math.Abs(float64(got[i] - x[i])); e > 2*top/steps[typ] {
					t.Fatalf("%v: %v became %v, off by %v steps", typ, x[i], got[i], e*steps[typ]/(2*top))
				}
			}
		}
	}
}

func TestZerosStayZero(t *testing.T) {
	for _, typ := range weights.Types() {
		stored, err := weightstest.Quantize(typ, make([]float32, 256))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, 256)
		if err := weights.Dequantize(got, typ, stored); err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			if v != 0 {
				t.Fatalf("%v: element %d is %v", typ, i, v)
			}
		}
	}
}

func TestAPartOfABlockIsRefused(t *testing.T) {
	if _, err := weightstest.Quantize(weights.Q4_0, make([]float32, 33)); err == nil {
		t.Error("33 values were stored as Q4_0")
	}
	if _, err := weightstest.Quantize(0, make([]float32, 32)); err == nil {
		t.Error("values were stored as no type")
	}
}
