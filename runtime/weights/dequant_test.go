package weights_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/weights"
)

// golden.gguf was written and decoded by ggml's own Python package: see
// testdata/make_golden.py.
func openGolden(t testing.TB) *weights.GGUF {
	t.Helper()
	g, err := weights.OpenGGUF("testdata/golden.gguf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// The arithmetic is the same float32 operations in the same order, so there is
// no tolerance.
func TestEveryTypeDecodesToTheBitsOfGGML(t *testing.T) {
	g := openGolden(t)
	for _, typ := range weights.Types() {
		t.Run(typ.String(), func(t *testing.T) {
			stored, ok := g.Tensor(typ.String() + ".stored")
			if !ok || stored.Type != typ {
				t.Fatalf("the golden file has no %v: %v", typ, stored.Type)
			}
			expected, _ := g.Tensor(typ.String() + ".expected")
			want, err := expected.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			got, err := stored.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("element %d is %v, not %v", i, got[i], want[i])
				}
			}
		})
	}
}

func TestDequantizeRefusesWrongSizes(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  weights.Type
		dst  int
		src  int
		want string
	}{
		{"no type", 0, 32, 0, "not a storage type"},
		{"type out of range", 200, 32, 0, "not a storage type"},
		{"half a block", weights.Q4_0, 16, 9, "do not divide"},
		{"a byte short", weights.Q4_K, 256, 143, "take 144 bytes, not 143"},
		{"a byte long", weights.F16, 3, 7, "take 6 bytes, not 7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := weights.Dequantize(make([]float32, c.dst), c.typ, make([]byte, c.src))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestTypesKnowTheirSizes(t *testing.T) {
	// Bits per element, from ggml's documentation.
	bits := map[weights.Type]float64{
		weights.F32: 32, weights.F16: 16, weights.BF16: 16, weights.Q4_0: 4.5, weights.Q4_1: 5, weights.Q5_0: 5.5,
		weights.Q5_1: 6, weights.Q8_0: 8.5, weights.Q4_K: 4.5, weights.Q5_K: 5.5, weights.Q6_K: 6.5625,
	}
	for _, typ := range weights.Types() {
		if got := float64(typ.RowBytes(1024)) * 8 / 1024; got != bits[typ] {
			t.Errorf("%v takes %v bits an element, not %v", typ, got, bits[typ])
		}
	}
	if none := weights.Type(0); none.RowBytes(64) != 0 || none.BlockElems() != 0 || none.String() != "Type(0)" {
		t.Errorf("the zero Type has %d bytes, blocks of %d, name %v", none.RowBytes(64), none.BlockElems(), none)
	}
}

func BenchmarkDequantize(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, typ := range weights.Types() {
		b.Run(typ.String(), func(b *testing.B) {
			dst := make([]float32, 1<<16)
			src := make([]byte, typ.RowBytes(len(dst)))
			for i := range src {
				src[i] = byte(rng.Uint32())
			}
			for b.Loop() {
				if err := weights.Dequantize(dst, typ, src); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(src))*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
		})
	}
}
