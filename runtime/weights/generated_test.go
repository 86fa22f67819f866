package weights_test

import (
	"math"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/weights"
)

// The bits of the first elements and of some far behind, written down once: they must
// never change, for benchmarks of different builds are compared.
func TestGeneratedElementsKeepTheirBits(t *testing.T) {
	g := weights.Generated{Key: 0x0123456789abcdef, Scale: 0x1p-5}
	for first, want := range map[int][]uint16{
		0:       {0xbcab, 0xbcb7, 0x3c60, 0x3bac, 0xbc3e, 0x3c53},
		5:       {0x3c53, 0x3ca5, 0xbc2a, 0xbc4d, 0xbccd, 0xbc92},
		1 << 33: {0xbcb5, 0x3cbc, 0x3bd1, 0x3cdc, 0xbc98, 0x3c10},
	} {
		got := make([]uint16, len(want))
		g.BF16(got, first)
		if !slices.Equal(got, want) {
			t.Errorf("elements from %d on are %#04x, want %#04x", first, got, want)
		}
	}
}

// A plain reading of the definition.
func oracle(g weights.Generated, i uint64) uint16 {
	x := g.Key + (i/4+1)*0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	x ^= x >> 31
	lane := int16(x >> (i % 4 * 16))
	// Exact in float64, so that what is rounded is the true product.
	return weights.Float32ToBF16(float32((float64(lane) + 0.5) / 32768 * float64(g.Scale)))
}

func TestAnyPartOfAGeneratedTensorIsTheSame(t *testing.T) {
	for _, g := range []weights.Generated{{Key: 0, Scale: 1}, {Key: math.MaxUint64, Scale: 0.0270633}, {Key: 77, Scale: 1.7320508}} {
		for _, c := range []struct{ first, n int }{{0, 1}, {0, 100}, {1, 7}, {2, 64}, {3, 5}, {4, 4}, {1001, 33}, {1 << 40, 10}} {
			got := make([]uint16, c.n)
			g.BF16(got, c.first)
			for i, x := range got {
				if want := oracle(g, uint64(c.first+i)); x != want {
					t.Fatalf("%+v: element %d is %#04x, want %#04x", g, c.first+i, x, want)
				}
			}
		}
	}
}

// A million numbers between -1 and 1 have mean 0 and variance 1/3, within five standard
// deviations of what samples of that size have: 5*sqrt(1/3)/1000 and 5*sqrt(4/45)/1000.
// Numbers of neighbours, and of tensors, do not correlate: 5/3/1000.
func TestGeneratedNumbersAreSpreadEvenly(t *testing.T) {
	const n = 1 << 20
	values := func(key uint64) []float64 {
		raw, out := make([]uint16, n), make([]float64, n)
		(&weights.Generated{Key: key, Scale: 1}).BF16(raw, 0)
		for i, x := range raw {
			out[i] = float64(weights.BF16ToFloat32(x))
		}
		return out
	}
	a, b := values(1), values(2)
	var mean, variance, neighbours, others float64
	for i := range a {
		mean += a[i] / n
		variance += a[i] * a[i] / n
		neighbours += a[i] * a[(i+1)%n] / n
		others += a[i] * b[i] / n
	}
	for what, x := range map[string][2]float64{
		"mean":                     {mean, 5 * math.Sqrt(1./3) / 1000},
		"variance":                 {variance - 1./3, 5 * math.Sqrt(4./45) / 1000},
		"covariance of neighbours": {neighbours, 5. / 3 / 1000},
		"covariance of tensors":    {others, 5. / 3 / 1000},
	} {
		if math.Abs(x[0]) > x[1] {
			t.Errorf("%s is off by %.2g, at most %.2g", what, x[0], x[1])
		}
	}
}

func BenchmarkGeneratedBF16(b *testing.B) {
	dst := make([]uint16, 1<<16)
	g := weights.Generated{Key: 1, Scale: 1}
	b.SetBytes(int64(2 * len(dst)))
	for b.Loop() {
		g.BF16(dst, 0)
	}
}
