package weights_test

import (
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime/weights"
)

// f16Value is the definition of binary16, for finite numbers.
func f16Value(h uint16) float64 {
	sign := 1.0
	if h>>15 == 1 {
		sign = -1
	}
	exp, frac := int(h>>10&31), float64(h&1023)
	if exp == 0 {
		return sign * math.Ldexp(frac, -24)
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

func TestEveryF16WidensToItsValueAndBack(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		f := weights.F16ToFloat32(h)
		if h&0x7c00 == 0x7c00 {
			if nan := h&0x3ff != 0; nan != (f != f) || !nan && !math.IsInf(float64(f), 1-2*int(h>>15)) {
				t.Errorf("%#04x widens to %v", h, f)
			}
		} else if float64(f) != f16Value(h) {
			t.Errorf("%#04x widens to %v, not %v", h, f, f16Value(h))
		}
		back := weights.Float32ToF16(f)
		if f != f { // the quiet bit may be added
			back, h = back|0x200, h|0x200
		}
		if back != h {
			t.Errorf("%#04x comes back as %#04x", h, back)
		}
	}
}

// Between two neighbours there are three cases: below, at and above the middle.
func TestRoundingToF16IsToNearestEven(t *testing.T) {
	inf := float32(math.Inf(1))
	for i := range 0x7c00 { // the last neighbour is infinity, at 2^16
		lower, upper := uint16(i), uint16(i+1)
		a, b := f16Value(lower), f16Value(upper)
		middle := float32((a + b) / 2) // exact: one bit more than binary16
		even := lower + lower&1
		for _, c := range []struct {
			f    float32
			want uint16
		}{
			{math.Nextafter32(middle, 0), lower},
			{middle, even},
			{math.Nextafter32(middle, inf), upper},
			{-middle, even | 0x8000},
		} {
			if c.f == 0 {
				continue
			}
			if got := weights.Float32ToF16(c.f); got != c.want {
				t.Fatalf("%v rounds to %#04x, not %#04x", c.f, got, c.want)
			}
		}
	}
	if got := weights.Float32ToF16(math.MaxFloat32); got != 0x7c00 {
		t.Errorf("the largest float32 rounds to %#04x", got)
	}
}

func TestRoundingToBF16IsToNearestEven(t *testing.T) {
	for _, c := range []struct {
		bits uint32
		want uint16
	}{
		{0x3f800000, 0x3f80}, // 1
		{0x3f807fff, 0x3f80}, // below the middle
		{0x3f808000, 0x3f80}, // the middle, even below
		{0x3f808001, 0x3f81},
		{0x3f818000, 0x3f82}, // the middle, even above
		{0x7f7fffff, 0x7f80}, // the largest float32 becomes infinite
		{0xff800000, 0xff80},
		{0x00000001, 0x0000},
	} {
		if got := weights.Float32ToBF16(math.Float32frombits(c.bits)); got != c.want {
			t.Errorf("%#08x rounds to %#04x, not %#04x", c.bits, got, c.want)
		}
	}
	if f := weights.BF16ToFloat32(weights.Float32ToBF16(math.Float32frombits(0x7f800001))); f == f {
		t.Errorf("a NaN became %v", f)
	}
}
