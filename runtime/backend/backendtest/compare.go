package backendtest

import (
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/weights"
)

// near compares rows of logits with the reference's. what names them.
func near(t testing.TB, what string, got [][]float32, want [][]float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i := range got {
		if d := distance(got[i], want[i]); !(d <= worst) { // NaN counts as worse
			worst, at = d, i
		}
	}
	if !(worst <= tolerance) {
		t.Errorf("%s: the logits of token %d of %d are off by %.2g of their length, more than %.2g", what, at, len(got), worst, tolerance)
		return
	}
	t.Logf("%s: off by at most %.2g of their length, allowed %.2g", what, worst, tolerance)
}

// distance returns |got-want| / |want|; NaN when the lengths differ.
func distance(got []float32, want []float64) float64 {
	if len(got) != len(want) {
		return math.NaN()
	}
	diff, size := 0.0, 0.0
	for i, w := range want {
		d := float64(got[i]) - w
		diff += d * d
		size += w * w
	}
	return math.Sqrt(diff / size)
}

// same compares logits of the same tokens that were computed in different ways:
// bit by bit where the backend promises that.
func (s *suite) same(t testing.TB, what string, got, want [][]float32, kv backend.KVType, w weights.Type, layers int) {
	t.Helper()
	if s.o.Rounds {
		wide := make([][]float64, len(want))
		for i := range want {
			for _, x := range want[i] {
				wide[i] = append(wide[i], float64(x))
			}
		}
		near(t, what, got, wide, s.o.tolerance(kv, w, layers))
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range got {
		for j := range want[i] {
			if len(got[i]) != len(want[i]) || math.Float32bits(got[i][j]) != math.Float32bits(want[i][j]) {
				t.Errorf("%s: the logits of token %d of %d have other bits", what, i, len(got))
				return
			}
		}
	}
}
