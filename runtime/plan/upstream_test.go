package plan

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// published reads a plan of the MoA repository from the folder beside the
// checkout; the files are not part of this project.
func published(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "plans", name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the published plan %s is not there", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var (
	vicuna7B  = Shape{Layers: 32, QueryHeads: 32, KVHeads: 32, HeadDim: 128}
	vicuna13B = Shape{Layers: 40, QueryHeads: 40, KVHeads: 40, HeadDim: 128}
	llama8B   = Shape{Layers: 32, QueryHeads: 32, KVHeads: 8, HeadDim: 128}
	llama70B  = Shape{Layers: 80, QueryHeads: 64, KVHeads: 8, HeadDim: 128}
	llama1B   = Shape{Layers: 16, QueryHeads: 32, KVHeads: 8, HeadDim: 64}
	llama3B   = Shape{Layers: 28, QueryHeads: 24, KVHeads: 8, HeadDim: 128}
)

// asMHA returns the model with a KV head for every query head, as the published
// implementation runs it.
func asMHA(m Shape) Shape {
	m.KVHeads = m.QueryHeads
	return m
}

// near compares with a figure printed to three decimals.
func near(got, want float64) bool { return math.Abs(got-want) <= 0.0005+1e-9 }

// TestPublishedPlansHaveTheirDensity holds the block densities that the
// published plans were optimised for.
func TestPublishedPlansHaveTheirDensity(t *testing.T) {
	lengths := []int{2048, 4096, 8192, 12288, 16384}
	for _, c := range []struct {
		name  string
		model Shape
		want  []float64
	}{
		{"lmsys--vicuna-7b-v1.5-16k", vicuna7B, []float64{0.500, 0.500, 0.500, 0.500, 0.500}},
		{"lmsys--vicuna-13b-v1.5-16k", vicuna13B, []float64{0.500, 0.500, 0.492, 0.489, 0.488}},
		{"gradientai--Llama-3-8B-Instruct-262k", asMHA(llama8B), []float64{0.486, 0.500, 0.500, 0.499, 0.498}},
		{"gradientai--Llama-3-70B-Instruct-262k", asMHA(llama70B), []float64{0.500, 0.500, 0.498, 0.491, 0.487}},
		{"meta-llama--Llama-3.2-1B-Instruct", asMHA(llama1B), []float64{0.494, 0.500, 0.491, 0.476, 0.468}},
		{"meta-llama--Llama-3.2-3B-Instruct", asMHA(llama3B), []float64{0.500, 0.500, 0.475, 0.458, 0.450}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _, err := ImportUpstream(published(t, c.name), c.model)
			if err != nil {
				t.Fatal(err)
			}
			for i, n := range lengths {
				if got := p.Density(n); !near(got, c.want[i]) {
					t.Errorf("density at %d tokens is %.4f, want %.3f", n, got, c.want[i])
				}
			}
		})
	}
}

// TestPublishedCacheSlots holds the cache sizes of the published implementation.
func TestPublishedCacheSlots(t *testing.T) {
	mean := func(t *testing.T, name string, m Shape, total int) float64 {
		p, err := decodeUpstream(published(t, name), m)
		if err != nil {
			t.Fatal(err)
		}
		slots := 0
		for _, layer := range p.rules {
			for _, r := range layer {
				slots += upstreamSlots(r, total)
			}
		}
		return float64(slots) / float64(m.Layers*m.QueryHeads)
	}
	for _, c := range []struct {
		name  string
		model Shape
		total int
		want  float64
	}{
		{"lmsys--vicuna-7b-v1.5-16k", vicuna7B, 4096, 1984},
		{"lmsys--vicuna-7b-v1.5-16k", vicuna7B, 8192, 4032},
		{"lmsys--vicuna-7b-v1.5-16k", vicuna7B, 16384, 8128},
		{"lmsys--vicuna-7b-v1.5-16k", vicuna7B, 32768, 16320},
		{"lmsys--vicuna-7b-v1.5-16k", vicuna7B, 65536, 32704},
		{"lmsys--vicuna-7b-v1.5-16k", vicuna7B, 8192 + 1024, 4544},
		{"gradientai--Llama-3-70B-Instruct-262k", llama70B, 4096, 1998},
	} {
		if got := math.Round(mean(t, c.name, c.model, c.total)); got != c.want {
			t.Errorf("%s at %d tokens: %v slots a head, want %v", c.name, c.total, got, c.want)
		}
	}
	// 992 MiB at 4096 tokens: keys and values of 32 x 32 heads, 128 halves each.
	bytes := mean(t, "lmsys--vicuna-7b-v1.5-16k", vicuna7B, 4096) * 32 * 32 * 128 * 2 * 2
	if bytes != 992<<20 {
		t.Errorf("%v MiB at 4096 tokens, want 992", bytes/(1<<20))
	}
}

// TestImportReportsWhatAGroupedModelPays holds the published ratios of KV memory
// to that of the dense model, and the groups that share a rule.
func TestImportReportsWhatAGroupedModelPays(t *testing.T) {
	for _, c := range []struct {
		name     string
		model    Shape
		shared   int
		upstream []float64 // at 4k, 8k, 16k, 32k
	}{
		{"gradientai--Llama-3-8B-Instruct-262k", llama8B, 120, []float64{1.94, 1.97, 1.98, 1.98}},
		{"gradientai--Llama-3-70B-Instruct-262k", llama70B, 301, []float64{3.90, 3.93, 3.86, 3.83}},
		{"meta-llama--Llama-3.2-1B-Instruct", llama1B, 48, []float64{1.94, 1.93, 1.86, 1.82}},
		{"meta-llama--Llama-3.2-3B-Instruct", llama3B, 147, []float64{1.46, 1.40, 1.34, 1.31}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := published(t, c.name)
			p, r, err := ImportUpstream(data, c.model)
			if err != nil {
				t.Fatal(err)
			}
			if r.Shared != c.shared || r.QueryHeads != c.model.Layers*c.model.QueryHeads || r.KVHeads != c.model.Layers*c.model.KVHeads {
				t.Errorf("%d of %d KV heads and %d query heads share a rule, want %d", r.Shared, r.KVHeads, r.QueryHeads, c.shared)
			}
			mha, _, err := ImportUpstream(data, asMHA(c.model))
			if err != nil {
				t.Fatal(err)
			}
			for i, cost := range r.Lengths {
				if i > 0 && math.Abs(cost.Upstream-c.upstream[i-1]) > 0.005+1e-9 {
					t.Errorf("upstream keeps %.3f of the dense cache at %d, want %.2f", cost.Upstream, cost.Tokens, c.upstream[i-1])
				}
				if cost.Before != mha.Density(cost.Tokens) || cost.After != p.Density(cost.Tokens) {
					t.Errorf("at %d tokens the report says %.4f and %.4f, the plans %.4f and %.4f",
						cost.Tokens, cost.Before, cost.After, mha.Density(cost.Tokens), p.Density(cost.Tokens))
				}
				if cost.Tokens == DefaultImportLength && cost.Narrowed != 0 {
					t.Errorf("%d KV heads see less than a query head's rule at the import's own length", cost.Narrowed)
				}
				t.Logf("%6d tokens: %.3f before, %.3f after, %.2f upstream, %d narrowed", cost.Tokens, cost.Before, cost.After, cost.Upstream, cost.Narrowed)
			}
		})
	}
}

const grouped = `{"alphas": [[-1024, 1024.0, 0, 0]], "betas": [[1.0, 0, 0.5, 0.5]]}`

var groupedModel = Shape{Layers: 1, QueryHeads: 4, KVHeads: 2, HeadDim: 64}

func TestAGroupTakesItsWidestRule(t *testing.T) {
	p, r, err := ImportUpstream([]byte(grouped), groupedModel)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Rule{{-1024, 1}, {0, 0.5}}, p.Rules); diff != "" {
		t.Error(diff)
	}
	if p.Span != SpanLength || r.Shared != 1 {
		t.Errorf("span %q, %d shared", p.Span, r.Shared)
	}
	// At 2048 tokens both rules of the first group have 16 blocks; below, the
	// constant one is wider, but no length of the report is below.
	for _, c := range r.Lengths {
		if c.Narrowed != 0 {
			t.Errorf("%d KV heads narrowed at %d tokens", c.Narrowed, c.Tokens)
		}
	}
	short, r, err := Importer{Length: 1024}.Import([]byte(grouped), groupedModel)
	if err != nil {
		t.Fatal(err)
	}
	if short.Rules[0] != (Rule{Alpha: 1024}) || r.Lengths[1].Narrowed != 1 {
		t.Errorf("at 1024 tokens the widest rule is %+v, %d narrowed at 4096", short.Rules[0], r.Lengths[1].Narrowed)
	}
}

func TestQueryHeadsOfAGroupAreNeighbours(t *testing.T) {
	p, _, err := ImportUpstream([]byte(`{"alphas": [[64, 128, 192, 256]], "betas": [[0, 0, 0, 0]]}`), groupedModel)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Rule{{128, 0}, {256, 0}}, p.Rules); diff != "" {
		t.Error(diff)
	}
}

func TestCoverNeverSeesLessThanAnyRuleOfItsGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(gridRule), 1, 5).Draw(t, "rules")
		im := Importer{Length: rapid.IntRange(1024, 32768).Draw(t, "length"), Cover: true}
		cover := im.merge(rules)
		for n := minBucket / BlockSize; n <= im.Length/BlockSize; n++ {
			if got, want := cover.lengthBlocks(n-1, n), widest(rules, n); got < want {
				t.Fatalf("%+v covers %v with %d blocks of %d, the widest has %d", cover, rules, got, n, want)
			}
		}
	})
}

func TestImportRefusesWhatDoesNotFit(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{`{`, "not JSON"},
		{`{"alphas": [["a"]]}`, "wrong type"},
		{`{"alphas": [[0, 0, 0, 0]]}`, "have 1 and 0 layers, the model has 1"},
		{`{"alphas": [[0, 0]], "betas": [[0, 0]]}`, "have 2 and 2 heads, the model has 4 query heads"},
		{strings.Replace(grouped, "1024.0", "1024.5", 1), "alphas[0][1] is 1024.5"},
		{strings.Replace(grouped, "1024.0", "1e300", 1), "alphas[0][1] is 1e+300"},
		{strings.Replace(grouped, "0.5]", "1.5]", 1), "betas[0][3] is 1.5"},
	} {
		if _, _, err := ImportUpstream([]byte(c.data), groupedModel); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.data, err, c.want)
		}
	}
	if _, _, err := ImportUpstream([]byte(grouped), Shape{Layers: 1, QueryHeads: 4, KVHeads: 3}); err == nil {
		t.Error("a model whose heads do not divide was accepted")
	}
	if _, _, err := (Importer{Length: 100}).Import([]byte(grouped), groupedModel); err == nil {
		t.Error("a length of 100 was accepted")
	}
	if _, _, err := ImportUpstream(make([]byte, MaxFileBytes+1), groupedModel); err == nil {
		t.Error("a file of 16 MiB was accepted")
	}
}
