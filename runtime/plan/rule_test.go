package plan

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// exactBlocks evaluates the definition of b(q) in rational arithmetic, on the
// very float64 that beta is.
func exactBlocks(r Rule, q, floor int) int {
	n := big.NewRat(int64(max(q+1, floor/64)), 1)
	x := new(big.Rat).SetFloat64(r.Beta)
	x.Mul(x, n)
	x.Add(x, big.NewRat(int64(r.Alpha), 64))
	f := new(big.Int).Div(x.Num(), x.Denom()) // Euclidean: the floor, as Denom > 0
	return int(min(max(f.Int64(), 1), int64(q+1)))
}

// gridRule draws rules as searches make them: beta in 32nds, where float64
// arithmetic is exact.
func gridRule(t *rapid.T) Rule {
	return Rule{
		Alpha: rapid.IntRange(-9000, 9000).Draw(t, "alpha"),
		Beta:  float64(rapid.IntRange(0, 32).Draw(t, "beta/32")) / 32,
	}
}

// anyRule draws any rule of the format, with a taste for the ends of the range.
func anyRule(t *rapid.T) Rule {
	if rapid.Bool().Draw(t, "grid") {
		return gridRule(t)
	}
	r := Rule{
		Alpha: rapid.OneOf(rapid.IntRange(-MaxContext, MaxContext), rapid.IntRange(-300, 300)).Draw(t, "alpha"),
		Beta:  rapid.Float64Range(0, 1).Draw(t, "beta"),
	}
	if rapid.Bool().Draw(t, "near 1") {
		r.Beta = 1 - float64(rapid.IntRange(0, 1<<20).Draw(t, "ulps"))*0x1p-53
	}
	return r
}

func TestPositionSpanIsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, q := gridRule(t), rapid.IntRange(0, 1<<14).Draw(t, "q")
		floor := BlockSize * rapid.IntRange(0, 128).Draw(t, "floor")
		if got, want := r.positionBlocks(q, floor/BlockSize), exactBlocks(r, q, floor); got != want {
			t.Fatalf("%+v at block %d with floor %d: b = %d, want %d", r, q, floor, got, want)
		}
	})
}

func TestSpanByHand(t *testing.T) {
	for _, c := range []struct {
		rule  Rule
		q     int
		floor int
		want  int
	}{
		{Rule{Alpha: 512, Beta: 0.25}, 0, 2048, 1},      // 8 + 0.25*32 = 16, but only block 0 exists
		{Rule{Alpha: 512, Beta: 0.25}, 31, 2048, 16},    // 8 + 8
		{Rule{Alpha: 512, Beta: 0.25}, 40, 2048, 18},    // 8 + 10.25
		{Rule{Alpha: 512, Beta: 0.25}, 20, 0, 13},       // 8 + 5.25
		{Rule{Alpha: 32, Beta: 0.5}, 0, 0, 1},           // 0.5 + 0.5: floored together
		{Rule{Alpha: 32, Beta: 0.5}, 2, 0, 2},           // 0.5 + 1.5 = 2: floored together
		{Rule{Alpha: -64, Beta: 0.5}, 63, 2048, 31},     // -1 + 32
		{Rule{Alpha: -96, Beta: 0.5}, 63, 2048, 30},     // -1.5 + 32 = 30.5
		{Rule{Alpha: -1024, Beta: 1}, 15, 0, 1},         // -16 + 16 = 0
		{Rule{Alpha: -1024, Beta: 1}, 15, 2048, 16},     // -16 + 32
		{Rule{}, 100, 2048, 1},                          // nothing asked for: its own block
		{Dense, 100, 2048, 101},                         //
		{Rule{Alpha: math.MaxInt, Beta: 1}, 7, 2048, 8}, // more than there is
		{Rule{Alpha: math.MinInt}, 7, 2048, 1},
		{Rule{Beta: math.NaN()}, 7, 2048, 1},
		{Rule{Beta: math.Inf(1)}, 7, 2048, 8},
		{Rule{Beta: math.Inf(-1)}, 7, 2048, 1},
	} {
		if got := c.rule.positionBlocks(c.q, c.floor/BlockSize); got != c.want {
			t.Errorf("%+v at block %d with floor %d: b = %d, want %d", c.rule, c.q, c.floor, got, c.want)
		}
	}
}

func TestLengthSpanByHand(t *testing.T) {
	for _, c := range []struct {
		rule     Rule
		q, total int // blocks
		want     int
	}{
		{Rule{Alpha: 32, Beta: 0.5}, 62, 63, 31},  // 0 + 31: floored apart
		{Rule{Alpha: -32, Beta: 0.5}, 63, 64, 31}, // -1 + 32
		{Rule{Alpha: -1024, Beta: 1}, 15, 16, 1},  // -16 + 16 = 0
		{Rule{Beta: 0.125}, 5, 128, 6},            // 16, but only six exist
		{Rule{Beta: 0.125}, 127, 128, 16},
		{Rule{Beta: math.NaN()}, 7, 8, 1},
		{Rule{Alpha: math.MaxInt, Beta: 1}, 7, 8, 8},
	} {
		if got := c.rule.lengthBlocks(c.q, c.total); got != c.want {
			t.Errorf("%+v at block %d of %d: b = %d, want %d", c.rule, c.q, c.total, got, c.want)
		}
	}
}

func TestBucketsAreThePublishedOnes(t *testing.T) {
	for _, c := range []struct{ total, want int }{
		{-1, 1024}, {0, 1024}, {1, 1024}, {1024, 1024}, {1025, 1536}, {1536, 1536}, {1537, 2048},
		{2049, 3072}, {3073, 4096}, {4097, 6144}, {12288, 12288}, {12289, 16384},
		{MaxContext, MaxContext}, {MaxContext + 1, MaxContext}, {math.MaxInt, MaxContext},
	} {
		if got := Bucket(c.total); got != c.want {
			t.Errorf("Bucket(%d) = %d, want %d", c.total, got, c.want)
		}
	}
}
