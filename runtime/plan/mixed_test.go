package plan

import (
	"math"
	"strings"
	"testing"
)

var mixedShapes = map[string]Shape{
	"32 x 32": {Layers: 32, QueryHeads: 32, KVHeads: 32, HeadDim: 128, Context: 16384},
	"32 x 8":  {Layers: 32, QueryHeads: 32, KVHeads: 8, HeadDim: 128, Context: 8192},
	"30 x 3":  {Layers: 30, QueryHeads: 9, KVHeads: 3, HeadDim: 64, Context: 8192},
}

func TestMixedPlansHaveTheDensityThatIsAskedFor(t *testing.T) {
	for name, m := range mixedShapes {
		for _, density := range []float64{0.1, 0.25, 0.5, 0.75, 0.9, 1} {
			for _, at := range []int{4096, m.Context, 131072} {
				p, err := Mixed("p", m, density, at)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if got := p.Density(at); math.Abs(got-density) > 0.01*density {
					t.Errorf("%s: density %.4f at %d tokens, want %.4f", name, got, at, density)
				}
				if err := p.Validate(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

// A layer, too, has heads of every kind: the plan is to be as uneven as a search's.
func TestMixedPlansHaveDenseAndVeryShortHeadsInEveryLayer(t *testing.T) {
	p, err := Parse("mixed:50%", mixedShapes["32 x 32"])
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "mixed-50" {
		t.Errorf("the plan is called %q", p.Name)
	}
	for layer, heads := range p.Heads {
		kinds := map[string]int{}
		for _, r := range heads {
			switch rule := p.Rules[r]; {
			case rule.IsDense():
				kinds["dense"]++
			case rule.Beta == 0:
				kinds["short"]++
			default:
				kinds["between"]++
			}
		}
		// A sixth, a sixth and two thirds of 32, give or take two.
		if kinds["dense"] < 4 || kinds["short"] < 3 || kinds["between"] < 18 {
			t.Errorf("layer %d has %v", layer, kinds)
		}
	}
}

func TestMixedPlansAreTheSameEveryTime(t *testing.T) {
	m := mixedShapes["32 x 8"]
	a, errA := Parse("mixed:33%,at=4096", m)
	b, errB := Parse("mixed:33%,at=4096", m)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	x, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if y, err := b.Encode(); err != nil || string(x) != string(y) {
		t.Errorf("two plans of one spec differ (%v)", err)
	}
}

func TestMixedPlansThatCannotBeAreRefused(t *testing.T) {
	m := mixedShapes["32 x 8"]
	for spec, want := range map[string]string{
		"mixed:0%":               "not a percentage",
		"mixed:50":               "not a percentage",
		"mixed:50%,floor=64":     "unknown option",
		"mixed:50%,at=much":      "not a number of tokens",
		"mixed:50%,at=0":         "at 0 tokens",
		"mixed:1%":               "the nearest is", // the sink and four blocks of 128 are more
		"mixed:50%,at=999999999": "at 999999999 tokens",
	} {
		if _, err := Parse(spec, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", spec, err, want)
		}
	}
}
