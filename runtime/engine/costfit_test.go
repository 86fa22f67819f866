package engine

import (
	"math"
	"math/rand/v2"
	"testing"
)

// What costs follow exactly is found, up to what the ridge leaves.
func TestCostsAreToldApart(t *testing.T) {
	for _, want := range [][3]float64{{0.003, 2e-5, 1e-8}, {0, 2e-5, 1e-8}, {0.003, 0, 0}, {-0.001, 3e-5, 0}} {
		rnd := rand.New(rand.NewPCG(3, 3))
		var f costFit
		for range 2 * fitWindow {
			tokens := float64(64 + rnd.IntN(448))
			work := prefillWork(rnd.IntN(7000), int(tokens))
			f.learn(tokens, work, want[0]+want[1]*tokens+want[2]*work, 1)
		}
		for _, tokens := range []float64{64, 300, 511} {
			for _, depth := range []int{0, 3000, 7000} {
				work := prefillWork(depth, int(tokens))
				expected, got := want[0]+want[1]*tokens+want[2]*work, f.expect(tokens, work)
				// The ridge is 1e-4 of the squares.
				if math.Abs(got-expected) > 0.02*0.02 {
					t.Errorf("costs %v: %g tokens at %d cost %.5f, want %.5f", want, tokens, depth, got, expected)
				}
			}
		}
	}
}

// However costs scatter, neither tokens nor what they see make a step shorter.
func TestNothingIsCheaperThanNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		var f costFit
		for range 1 + rnd.IntN(40) {
			tokens := 1 + rnd.IntN(500)
			f.learn(float64(tokens), prefillWork(rnd.IntN(9000), tokens), rnd.NormFloat64(), 1)
			for i, c := range f.cost {
				if math.IsNaN(c) || i > 0 && c < 0 {
					t.Fatalf("costs %v", f.cost)
				}
			}
			if !(f.spread >= 0) {
				t.Fatalf("spread %g", f.spread)
			}
		}
	}
}

// A step that was held up once does not become the measure of all.
func TestAHiccupIsNotBelieved(t *testing.T) {
	var f costFit
	for range fitWindow {
		f.learn(100, 1e5, 0.01, 0.005)
	}
	before := f.expect(100, 1e5)
	f.learn(100, 1e5, 3, 0.005)
	// It counts as 0.005 too long. Its weight is (1-0.9)/(1-0.9^24) = 0.11 of all: so much
	// of that is added to the mean, and its root, 0.33, to the spread.
	if after := f.expect(100, 1e5); after > before+0.12*0.005+fitMargin*0.34*0.005 {
		t.Errorf("after one step of 3 s, %.4f s are expected instead of %.4f", after, before)
	}
}
