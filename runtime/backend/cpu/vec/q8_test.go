package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// q8Samples are blocks of every kind: normal ones of every magnitude that float32
// has, with and without an outlier, zeros, and numbers halfway between codes.
func q8Samples() [][]float32 {
	r := rand.New(rand.NewPCG(8, 0))
	var blocks [][]float32
	for exponent := -149; exponent < 127; exponent++ {
		for range 4 {
			block := make([]float32, Q8Block)
			for i := range block {
				block[i] = float32(math.Ldexp(r.Float64()*2-1, exponent))
			}
			block[r.IntN(Q8Block)] = float32(math.Ldexp(1, exponent))
			blocks = append(blocks, block)
		}
	}
	halfway := make([]float32, Q8Block)
	for i := range halfway {
		halfway[i] = (float32(i) + 0.5) * float32(1-i%2*2)
	}
	halfway[31] = 127 // the scale is 1
	return append(blocks, make([]float32, Q8Block), halfway)
}

// A value comes back within half a step, a step being the scale. The scale has 11
// significant bits: where it is a normal number of binary16 and is rounded down,
// the largest value exceeds 127 steps by 127/2048 = 0.06 at most, less than half.
func TestToQ8IsWithinHalfAStep(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, block := range q8Samples() {
			var codes [Q8Block]int8
			var scales [1]uint16
			o.ToQ8(codes[:], scales[:], block)
			largest := 0.0
			for _, v := range block {
				largest = max(largest, math.Abs(float64(v)))
			}
			exact, scale := largest/127, f16Value(scales[0])
			if exact > maxF16 {
				if scale != maxF16 {
					t.Fatalf("the scale of a block up to %v is %v, want it clamped", largest, scale)
				}
				continue
			}
			// Half a unit in the last place: 2^-11 relative, 2^-25 for subnormal
			// numbers; the quotient by 127 is rounded to float32 before.
			if e := math.Abs(scale - exact); e > max(exact*0x1p-11, 0x1p-25)*(1+0x1p-12) {
				t.Fatalf("the scale of a block up to %v is %v, want %v", largest, scale, exact)
			}
			for i, v := range block {
				if codes[i] == -128 {
					t.Fatalf("value %d of a block has code -128", i)
				}
				e := math.Abs(float64(codes[i])*scale - float64(v))
				// Where the scale is subnormal, the largest values are clamped to
				// 127 of a scale that is too small by 2^-25.
				if e > scale*(0.5+0x1p-16)+127*max(exact-scale, 0) {
					t.Fatalf("%v in a block up to %v with scale %v has code %d", v, largest, scale, codes[i])
				}
				if exact >= 0x1p-14 && e > scale*(0.5+0x1p-16) {
					t.Fatalf("%v in a block up to %v with scale %v has code %d", v, largest, scale, codes[i])
				}
			}
		}
	})
}

func TestToQ8RoundsToNearestEven(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		x := make([]float32, 2*Q8Block)
		copy(x, []float32{0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 125.5, 127})
		copy(x[Q8Block:], []float32{254, 1, 3, 5, -1, -3, -5})
		var codes [2 * Q8Block]int8
		var scales [2]uint16
		o.ToQ8(codes[:], scales[:], x)
		if f16Value(scales[0]) != 1 || f16Value(scales[1]) != 2 {
			t.Fatalf("scales %v and %v, want 1 and 2", f16Value(scales[0]), f16Value(scales[1]))
		}
		if want := []int8{0, 2, 2, 0, -2, -2, 126, -126, 126, 127, 0}; !slices.Equal(codes[:len(want)], want) {
			t.Errorf("codes %v, want %v", codes[:len(want)], want)
		}
		if want := []int8{127, 0, 2, 2, 0, -2, -2, 0}; !slices.Equal(codes[Q8Block:][:len(want)], want) {
			t.Errorf("codes %v, want %v", codes[Q8Block:][:len(want)], want)
		}
	})
}

func TestToQ8IsTheSameOnEveryISA(t *testing.T) {
	samples := slices.Concat(q8Samples()...)
	want, wantScales := make([]int8, len(samples)), make([]uint16, len(samples)/Q8Block)
	Ops{}.ToQ8(want, wantScales, samples)
	forEachISA(t, func(t *testing.T, o Ops) {
		got, scales := make([]int8, len(samples)), make([]uint16, len(wantScales))
		o.ToQ8(got, scales, samples)
		if !slices.Equal(got, want) || !slices.Equal(scales, wantScales) {
			t.Error("codes or scales differ from plain Go's")
		}
	})
}

// One value that is no finite number shows in its own block and in no other.
func TestToQ8ShowsWhatIsNotFinite(t *testing.T) {
	forEachISA(t, func(t *testing.T, o Ops) {
		for _, bad := range []float32{
			float32(math.NaN()), math.Float32frombits(0xff800001), float32(math.Inf(1)), float32(math.Inf(-1)),
		} {
			for at := range Q8Block {
				x := slices.Repeat([]float32{1}, 3*Q8Block)
				x[Q8Block+at] = bad
				codes, scales := make([]int8, len(x)), make([]uint16, 3)
				o.ToQ8(codes, scales, x)
				if !math.IsNaN(f16Value(scales[1])) {
					t.Fatalf("%v at %d: the scale is %#04x", bad, at, scales[1])
				}
				for _, i := range []int{0, 2} {
					if codes[i*Q8Block] != 127 || math.IsNaN(f16Value(scales[i])) {
						t.Fatalf("%v at %d changed block %d", bad, at, i)
					}
				}
			}
		}
	})
}
