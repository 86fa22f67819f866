package vec

import (
	"fmt"
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/model"
)

func TestRopeMatchesFloat64(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, c := range []struct {
			headDim, pairs int
			interleaved    bool
			scale          float64
		}{
			{64, 32, true, 1}, {64, 32, false, 1}, {128, 64, true, 1.2}, {128, 64, false, 0.8},
			{80, 40, true, 1}, {80, 40, false, 1}, {24, 6, true, 1}, {24, 6, false, 1}, {64, 16, true, 1}, {64, 16, false, 1},
		} {
			t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
				r := model.Rope{Scale: c.scale, Interleaved: c.interleaved}
				for i := range c.pairs {
					r.Frequencies = append(r.Frequencies, math.Pow(10000, -float64(i)/float64(c.pairs)))
				}
				rope, err := o.NewRope(r, c.headDim)
				if err != nil {
					t.Fatal(err)
				}
				for _, position := range []int{0, 1, 63, 1023, 1024, 8191} {
					rope.Grow(position + 1)
					x := random(uint64(position), 3*c.headDim, 1)
					got := append([]float32(nil), x...)
					rope.Rotate(got, position)
					for h := range 3 {
						compareRotated(t, r, got[h*c.headDim:][:c.headDim], x[h*c.headDim:][:c.headDim], position)
					}
				}
			})
		}
	})
}

func compareRotated(t *testing.T, r model.Rope, got, x []float32, position int) {
	t.Helper()
	want := make([]float64, len(x))
	for i := range want {
		want[i] = float64(x[i])
	}
	for i, f := range r.Frequencies {
		a, b := i, i+len(r.Frequencies)
		if r.Interleaved {
			a, b = 2*i, 2*i+1
		}
		sin, cos := math.Sincos(float64(position) * f)
		want[a] = r.Scale * (float64(x[a])*cos - float64(x[b])*sin)
		want[b] = r.Scale * (float64(x[b])*cos + float64(x[a])*sin)
	}
	for i := range want {
		// Sine, cosine, two products and a sum round once each; elements are
		// below 6 in magnitude.
		if math.Abs(float64(got[i])-want[i]) > 6*4*0x1p-24 {
			t.Fatalf("position %d: dimension %d is %v, want %v", position, i, got[i], want[i])
		}
	}
}

func TestRopeRefusesWhatDoesNotFit(t *testing.T) {
	for name, r := range map[string]model.Rope{
		"no frequencies":  {Scale: 1},
		"too many":        {Scale: 1, Frequencies: make([]float64, 33)},
		"scale forgotten": {Frequencies: make([]float64, 32)},
	} {
		if _, err := For(isa.Auto).NewRope(r, 64); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkRotate(b *testing.B) {
	for _, interleaved := range []bool{true, false} {
		b.Run(fmt.Sprintf("interleaved=%v", interleaved), func(b *testing.B) {
			rope, err := For(isa.Auto).NewRope(model.Rope{Frequencies: make([]float64, 32), Scale: 1, Interleaved: interleaved}, 64)
			if err != nil {
				b.Fatal(err)
			}
			rope.Grow(1)
			x := random(1, 12*64, 1)
			b.SetBytes(int64(8 * len(x)))
			for b.Loop() {
				rope.Rotate(x, 0)
			}
		})
	}
}
