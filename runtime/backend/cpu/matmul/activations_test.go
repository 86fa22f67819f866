package matmul

import (
	"math"
	"math/rand/v2"
	"testing"
)

// edgeBlocks returns blocks of 32 values with something odd in each.
func edgeBlocks(rng *rand.Rand) [][]float32 {
	var out [][]float32
	for _, scale := range []float64{0, 1, 1e-3, 1e4, 1e-20, 1e-35, 1e-44, 1e38} {
		b := make([]float32, blockCols)
		for i := range b {
			b[i] = float32(scale * (2*rng.Float64() - 1))
		}
		out = append(out, b)
	}
	ties := make([]float32, blockCols)
	for i := range ties {
		ties[i] = float32(i) + 0.5
	}
	ties[31] = 127
	out = append(out, ties)
	for _, odd := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		b := make([]float32, blockCols)
		for i := range b {
			b[i] = rng.Float32()
		}
		b[rng.IntN(blockCols)] = odd
		out = append(out, b)
	}
	return out
}

func TestQuantizeMatchesPlainGo(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	blocks := edgeBlocks(rng)
	for range 200 {
		b := make([]float32, blockCols)
		for i := range b {
			b[i] = float32(rng.NormFloat64())
		}
		blocks = append(blocks, b)
	}
	for n, b := range blocks {
		var want, got [1]xblock
		quantizeGeneric(want[:], b)
		quantize(got[:], b)
		if math.Float32bits(got[0].scale) != math.Float32bits(want[0].scale) {
			t.Errorf("block %d: scale %v, want %v", n, got[0].scale, want[0].scale)
		}
		got[0].scale, want[0].scale = 0, 0
		if got != want {
			t.Errorf("block %d:\n got %v\nwant %v", n, got, want)
		}
	}
}

func TestQuantizeIsWithinHalfAStep(t *testing.T) {
	for n, b := range edgeBlocks(rand.New(rand.NewPCG(2, 2))) {
		var q [1]xblock
		quantize(q[:], b)
		var absmax, sum float64
		var halves [2]int
		for j, v := range b {
			absmax = max(absmax, math.Abs(float64(v)))
			sum += float64(q[0].codes[j])
			halves[j/16] += int(q[0].codes[j])
		}
		if float64(q[0].sum) != sum || int(q[0].halves[0]) != halves[0] || int(q[0].halves[1]) != halves[1] {
			t.Errorf("block %d: sums %v %v, want %v %v", n, q[0].sum, q[0].halves, sum, halves)
		}
		if math.IsNaN(absmax) || math.IsInf(absmax, 0) {
			if s := float64(q[0].scale); !math.IsNaN(s) && !math.IsInf(s, 0) {
				t.Errorf("block %d: scale %v hides a value that is not finite", n, s)
			}
			continue
		}
		for j, v := range b {
			// Half a step, and the roundings of scale, reciprocal and product.
			bound := absmax/127*(0.5+127*0x1p-22) + tinyScale
			if diff := math.Abs(float64(v) - float64(q[0].codes[j])*float64(q[0].scale)); diff > bound {
				t.Errorf("block %d: %v became %v", n, v, float64(q[0].codes[j])*float64(q[0].scale))
			}
		}
	}
}

func TestResizeKeepsMemory(t *testing.T) {
	var a Activations
	a.Resize(8, 64)
	if n := testing.AllocsPerRun(10, func() { a.Resize(4, 96); a.Resize(8, 64) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if a.Rows() != 8 || a.Cols() != 64 || len(a.Row(7)) != 64 {
		t.Errorf("shape %d x %d, row of %d", a.Rows(), a.Cols(), len(a.Row(7)))
	}
}
