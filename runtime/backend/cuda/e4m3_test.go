//go:build cuda

package cuda

import (
	"encoding/binary"
	"math"
	"sort"
	"testing"

	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

// e4m3Error is the relative error of a number rounded to e4m3, with 4 significant
// bits: at most 2^-4 of the magnitude, on average 1/sqrt(3) of that (rounded up), as
// backendtest.BF16Activations.
const e4m3Error = 1.0 / 16 / 1.7

// e4m3NaN is the one positive code that is not a number; the codes below it grow with
// their values.
const e4m3NaN = 0x7f

// e4m3Value is the definition: a sign, 4 bits of exponent with a bias of 7 and 3 of
// fraction, no infinities.
func e4m3Value(code byte) float64 {
	exponent, fraction := int(code>>3&15), float64(code&7)
	x := math.Ldexp(8+fraction, exponent-10)
	switch {
	case code&e4m3NaN == e4m3NaN:
		return math.NaN()
	case exponent == 0:
		x = math.Ldexp(fraction, -9)
	}
	if code >= 0x80 {
		return -x
	}
	return x
}

// e4m3Code finds the code nearest to a value, of two the even one; beyond the largest
// it is the largest.
func e4m3Code(x float64) byte {
	if math.IsNaN(x) {
		return e4m3NaN
	}
	a := math.Abs(x)
	above := sort.Search(e4m3NaN-1, func(c int) bool { return e4m3Value(byte(c)) >= a })
	code := byte(above)
	if above > 0 {
		over, under := e4m3Value(code)-a, a-e4m3Value(code-1)
		if under < over || under == over && code%2 == 1 {
			code--
		}
	}
	if math.Signbit(x) {
		code |= 0x80
	}
	return code
}

// e4m3Scale is the scale of a row: the least normal power of two at which no
// magnitude is above 448.
func e4m3Scale(row []float32) float64 {
	scale := math.Ldexp(1, -126)
	for _, x := range row {
		for math.Abs(float64(x)) > 448*scale && !math.IsInf(float64(x), 0) {
			scale *= 2
		}
	}
	return scale
}

func TestEveryCodeIsTheNearestToItselfAndItsNeighbourhood(t *testing.T) {
	for c := range 0x7f {
		x := e4m3Value(byte(c))
		if got := e4m3Code(x); got != byte(c) {
			t.Errorf("the value %v of code %#x has code %#x", x, c, got)
		}
		if got := e4m3Code(-x); got != byte(c)|0x80 {
			t.Errorf("the value %v of code %#x has code %#x", -x, c|0x80, got)
		}
		if c == 0x7e {
			continue
		}
		middle := (x + e4m3Value(byte(c+1))) / 2
		for _, n := range []struct {
			value float64
			want  int
		}{{math.Nextafter(middle, 0), c}, {middle, c + c%2}, {math.Nextafter(middle, 1e9), c + 1}} {
			if got := e4m3Code(n.value); got != byte(n.want) {
				t.Errorf("%v, near the middle above code %#x, has code %#x, want %#x", n.value, c, got, n.want)
			}
		}
	}
	if e4m3Value(0x7e) != 448 || e4m3Value(0x08) != math.Ldexp(1, -6) || e4m3Value(0x01) != math.Ldexp(1, -9) {
		t.Errorf("the largest code is %v, the least normal one %v, the least %v", e4m3Value(0x7e), e4m3Value(0x08), e4m3Value(0x01))
	}
	if e4m3Code(math.Inf(-1)) != 0xfe || e4m3Code(math.NaN())&e4m3NaN != e4m3NaN {
		t.Errorf("infinity has code %#x, what is no number %#x", e4m3Code(math.Inf(-1)), e4m3Code(math.NaN()))
	}
}

// rounded is a source whose projections have been through e4m3 codes: their values
// are what a device with fp8 weights computes with, and bfloat16 holds them.
type rounded struct {
	weights.Source
	keep map[string]bool // names of tensors that stay as they are
}

var _ weights.Source = rounded{}

// roundedWeights rounds all matrices but the embedding and the output projection.
func roundedWeights(src weights.Source) weights.Source {
	return rounded{src, map[string]bool{"token_embd.weight": true, "output.weight": true}}
}

func (r rounded) Tensor(name string) (weights.Tensor, bool) {
	t, ok := r.Source.Tensor(name)
	if !ok || len(t.Shape) != 2 || r.keep[name] {
		return t, ok
	}
	values, err := t.Float32s()
	if err != nil {
		return t, false
	}
	for i := range values { // as the loader does first
		values[i] = weights.BF16ToFloat32(weights.Float32ToBF16(values[i]))
	}
	out := make([]byte, 0, 2*len(values))
	for cols := t.Shape[1]; len(values) > 0; values = values[cols:] {
		scale := e4m3Scale(values[:cols])
		for _, x := range values[:cols] {
			x := float32(e4m3Value(e4m3Code(float64(x)/scale)) * scale)
			out = binary.LittleEndian.AppendUint16(out, weights.Float32ToBF16(x))
		}
	}
	t.Type, t.Data = weights.BF16, out
	return t, true
}

// The source that is tested against must be exact itself.
func TestRoundedWeightsAreFixedPoints(t *testing.T) {
	values := []float32{0, 1, -1.0625, 0.001, 3e-5, 447, -1000, 1e-20}
	data, err := weightstest.Quantize(weights.F32, values)
	if err != nil {
		t.Fatal(err)
	}
	src := weights.Source(weightstest.NewSource(weights.Tensor{Name: "w", Type: weights.F32, Shape: []int{2, 4}, Data: data}))
	once, _ := roundedWeights(src).Tensor("w")
	twice, _ := roundedWeights(roundedWeights(src)).Tensor("w")
	if string(once.Data) != string(twice.Data) {
		t.Errorf("rounding again changes the values: %x, %x", once.Data, twice.Data)
	}
	got, err := once.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	// The scales are 2^-8 (448/256 is above 1.0625, 448/512 is not) and 4.
	want := []float32{0, 1, -1, 0.25 / 256, 0, 448, -1024, 0}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v was rounded to %v, want %v", values[i], got[i], want[i])
		}
	}
}
