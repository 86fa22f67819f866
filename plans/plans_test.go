package plans

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/plan"
)

// smolLM2 is the model that the plans were made for.
var smolLM2 = plan.Shape{
	Layers: 30, QueryHeads: 9, KVHeads: 3, HeadDim: 64,
	WeightsSHA256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}

func TestEveryFileIsListed(t *testing.T) {
	entries, err := filepath.Glob("*.json")
	if err != nil || len(entries) != len(names) {
		t.Fatalf("%d files, %d names, %v", len(entries), len(names), err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e, ".json")
		if p, ok := ByName(name); !ok || !strings.HasSuffix(name, "."+p.Name) {
			t.Errorf("%s: found %v", name, ok)
		}
	}
	if _, ok := ByName("none"); ok {
		t.Error("found a plan that does not exist")
	}
}

// TestPlansKeepWhatTheyState: the stated densities are caps that the search
// filled, stated to four decimals. One head more or less by a page of 32 is 0.0003
// of the 90 heads' 2048 tokens.
func TestPlansKeepWhatTheyState(t *testing.T) {
	for _, p := range All() {
		if len(p.Densities) != 3 {
			t.Errorf("%s states %d densities", p.Name, len(p.Densities))
		}
		for tokens, want := range p.Densities {
			got := p.Density(tokens)
			if got > want+5e-5 || got < want-4e-4 {
				t.Errorf("%s at %d tokens: density %.4f, stated %.4f", p.Name, tokens, got, want)
			}
		}
		if p.Span != plan.SpanPosition || p.Floor != plan.DefaultFloor {
			t.Errorf("%s: span %s, floor %d", p.Name, p.Span, p.Floor)
		}
		if p.Search == nil || p.Quality == nil {
			t.Errorf("%s lost how it was found", p.Name)
		}
	}
}

func TestPlansAreFoundByShapeAndWeights(t *testing.T) {
	count := func(change func(*plan.Shape)) int {
		m := smolLM2
		change(&m)
		return len(ForShape(m))
	}
	if n := count(func(*plan.Shape) {}); n != 3 {
		t.Errorf("%d plans for their own weights", n)
	}
	if n := count(func(m *plan.Shape) { m.WeightsSHA256 = "" }); n != 3 {
		t.Errorf("%d plans for their shape", n)
	}
	if n := count(func(m *plan.Shape) { m.WeightsSHA256 = strings.Repeat("0", 64) }); n != 0 {
		t.Errorf("%d plans for other weights", n)
	}
	if n := count(func(m *plan.Shape) { m.Layers++ }); n != 0 {
		t.Errorf("%d plans for another shape", n)
	}
	byHash := ForWeights(strings.ToUpper(smolLM2.WeightsSHA256))
	if len(byHash) != 3 || byHash[0].Name != "moa-50" || byHash[2].Name != "moa-25" {
		t.Errorf("%d plans by hash", len(byHash))
	}
	if len(ForWeights("")) != 0 {
		t.Error("plans for no weights")
	}
}
