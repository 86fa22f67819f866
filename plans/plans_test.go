package plans

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/planstore"
	"github.com/moaserve/moaserve/runtime/plan"
)

// smolLM2 is the model that the plans were made for.
var smolLM2 = plan.Shape{
	Layers: 30, QueryHeads: 9, KVHeads: 3, HeadDim: 64, Context: 8192,
	WeightsSHA256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}

func TestEveryFileIsListed(t *testing.T) {
	entries, err := filepath.Glob("*.json")
	if err != nil || len(entries) != len(names) {
		t.Fatalf("%d files, %d names, %v", len(entries), len(names), err)
	}
	for i, p := range All() {
		if !strings.HasSuffix(names[i], "."+p.Name) {
			t.Errorf("%s holds the plan %s", names[i], p.Name)
		}
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
	store, err := planstore.NewMemory(All()...)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*plan.Shape)
		want   string
	}{
		"their own weights": {func(*plan.Shape) {}, "moa-50 moa-33 moa-25"},
		"unknown weights":   {func(m *plan.Shape) { m.WeightsSHA256 = "" }, "moa-50 moa-33 moa-25"},
		"other weights":     {func(m *plan.Shape) { m.WeightsSHA256 = strings.Repeat("0", 64) }, ""},
		"another shape":     {func(m *plan.Shape) { m.Layers++ }, ""},
	} {
		m := smolLM2
		c.change(&m)
		list, err := store.List(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range list {
			got = append(got, p.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: plans %v, want %s", name, got, c.want)
		}
	}
}
