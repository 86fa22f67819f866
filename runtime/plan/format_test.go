package plan

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const example = `{
  "format": "moaserve.plan/1", "name": "half",
  "model": {"architecture": "llama", "layers": 2, "query_heads": 4, "kv_heads": 2, "head_dim": 64},
  "block": 64, "sink_blocks": 1, "span": "position", "floor": 2048,
  "rules": [{"alpha": 512, "beta": 0.25}, {"alpha": 0, "beta": 1}],
  "heads": [[0, 1], [1, 1]],
  "density": {"4096": 0.75, "16384": 0.6},
  "search": {"program": "a <b> & c", "seed": 1}, "quality": null
}`

func TestDecodeReadsEveryField(t *testing.T) {
	got, err := Decode([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	want := &Plan{
		Name:  "half",
		Model: Shape{Architecture: "llama", Layers: 2, QueryHeads: 4, KVHeads: 2, HeadDim: 64},
		Span:  SpanPosition, Floor: 2048,
		Rules: []Rule{{512, 0.25}, {0, 1}}, Heads: [][]int{{0, 1}, {1, 1}},
		Densities: map[int]float64{4096: 0.75, 16384: 0.6},
		Search:    json.RawMessage(`{"program":"a <b> & c","seed":1}`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestEncodeWritesARuleAndALayerALine(t *testing.T) {
	p, err := Decode([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "format": "moaserve.plan/1",
  "name": "half",
  "model": {"architecture":"llama","layers":2,"query_heads":4,"kv_heads":2,"head_dim":64},
  "block": 64,
  "sink_blocks": 1,
  "span": "position",
  "floor": 2048,
  "rules": [
    {"alpha":512,"beta":0.25},
    {"alpha":0,"beta":1}
  ],
  "heads": [
    [0,1],
    [1,1]
  ],
  "density": {"4096": 0.75, "16384": 0.6},
  "search": {"program":"a <b> & c","seed":1}
}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPlansSurviveTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPlan(t)
		p.Model.QueryHeads, p.Model.HeadDim = 2*p.Model.KVHeads, 64
		if rapid.Bool().Draw(t, "sections") {
			p.Densities = map[int]float64{2048: rapid.Float64Range(0.01, 1).Draw(t, "density")}
			p.Search = json.RawMessage(`{"text":"a<b \u2028 é"}`)
			p.Quality = json.RawMessage(`{"kl":[1e-3,null]}`)
		}
		data, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		q, err := Decode(data)
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		if diff := cmp.Diff(p, q); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestErrorsNameTheField(t *testing.T) {
	for _, c := range []struct {
		field    string // of the FormatError
		old, new string // change to the example
	}{
		{"format", `"moaserve.plan/1"`, `"moaserve.plan/2"`},
		{"format", `"format": "moaserve.plan/1", `, ``},
		{"", `{`, `[`},
		{"", `null`, `nul`},
		{"name", `"half"`, `"a:b"`},
		{"name", `"half"`, `"dense"`},
		{"name", `"half"`, `"` + strings.Repeat("a", 65) + `"`},
		{"model.layers", `"layers": 2`, `"layers": 0`},
		{"model.layers", `"layers": 2`, `"layers": 1025`},
		{"model.layers", `"layers": 2`, `"layers": "two"`},
		{"model.kv_heads", `"kv_heads": 2`, `"kv_heads": 5`},
		{"model.query_heads", `"query_heads": 4`, `"query_heads": 5`},
		{"model.query_heads", `"query_heads": 4`, `"query_heads": 100000`},
		{"model.head_dim", `, "head_dim": 64`, ``},
		{"model.context", `"head_dim": 64`, `"head_dim": 64, "context": -1`},
		{"model.weights_sha256", `"head_dim": 64`, `"head_dim": 64, "weights_sha256": "abc"`},
		{"block", `"block": 64`, `"block": 128`},
		{"block", `"block": 64, `, ``},
		{"sink_blocks", `"sink_blocks": 1`, `"sink_blocks": 2`},
		{"sink_blocks", `"sink_blocks": 1, `, ``},
		{"span", `"position"`, `"query"`},
		{"span", `"span": "position", `, ``},
		{"floor", `"floor": 2048,`, ``},
		{"floor", `"floor": 2048`, `"floor": 2000`},
		{"floor", `"floor": 2048`, `"floor": -64`},
		{"rules", `[{"alpha": 512, "beta": 0.25}, {"alpha": 0, "beta": 1}]`, `[]`},
		{"rules[0]", `"alpha": 512, `, ``},
		{"rules[1]", `{"alpha": 0, "beta": 1}`, `null`},
		{"rules.alpha", `"alpha": 512`, `"alpha": 512.5`},
		{"rules[0].alpha", `"alpha": 512`, `"alpha": -999999999`},
		{"rules[1].beta", `"beta": 1`, `"beta": 1.5`},
		{"rules[0].beta", `0.25`, `-0.25`},
		{"heads", `[[0, 1], [1, 1]]`, `[[0, 1]]`},
		{"heads[1]", `[1, 1]]`, `[1]]`},
		{"heads[1]", `[1, 1]]`, `null]`},
		{"heads[0][1]", `[[0, 1]`, `[[0, 2]`},
		{"heads[0][0]", `[[0, 1]`, `[[-1, 1]`},
		{"density", `"4096": 0.75`, `"4096": 1.75`},
		{"density", `"4096": 0.75`, `"0": 0.75`},
		{"search", `{"program": "a <b> & c", "seed": 1}`, `[1]`},
		{"quality", `"quality": null`, `"quality": 3`},
	} {
		data := strings.Replace(example, c.old, c.new, 1)
		if data == example {
			t.Fatalf("%q is not in the example", c.old)
		}
		p, err := Decode([]byte(data))
		if e, ok := errors.AsType[*FormatError](err); !ok || e.Field != c.field || p != nil {
			t.Errorf("%q for %q: got error %v, want one about %q", c.new, c.old, err, c.field)
		}
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	if _, err := Decode([]byte(strings.Replace(example, `"block"`, `"licence": {"a": []}, "block"`, 1))); err != nil {
		t.Error(err)
	}
}

func TestLengthPlansNeedNoFloor(t *testing.T) {
	data := strings.NewReplacer(`"floor": 2048,`, ``, `"position"`, `"length"`).Replace(example)
	if p, err := Decode([]byte(data)); err != nil || p.Floor != 0 {
		t.Errorf("%v, %v", p, err)
	}
}

func TestUpstreamFilesArePointedOut(t *testing.T) {
	_, err := Decode([]byte(`{"alphas": [[0]], "betas": [[0.5]]}`))
	if err == nil || !strings.Contains(err.Error(), "imported") {
		t.Error(err)
	}
}

func TestOversizedFilesAreRefused(t *testing.T) {
	if _, err := Decode(make([]byte, MaxFileBytes+1)); err == nil {
		t.Error("no error")
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	shape := Shape{Layers: 1, QueryHeads: 1, KVHeads: 1, HeadDim: 64}
	for name, p := range map[string]*Plan{
		"NaN":     Uniform("p", shape, Rule{Beta: math.NaN()}),
		"shape":   Uniform("p", Shape{Layers: 1, KVHeads: 1}, Dense),
		"search":  {Model: shape, Span: SpanLength, Rules: []Rule{Dense}, Heads: [][]int{{0}}, Search: json.RawMessage(`{`)},
		"quality": {Model: shape, Span: SpanLength, Rules: []Rule{Dense}, Heads: [][]int{{0}}, Quality: json.RawMessage(`1`)},
	} {
		if _, err := p.Encode(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCheckNamesEveryDifference(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	m := Shape{Layers: 2, QueryHeads: 4, KVHeads: 2, HeadDim: 64, WeightsSHA256: a}
	p := NewDense(m)
	for _, c := range []struct {
		name   string
		change func(*Shape)
		want   string
	}{
		{"the same", func(*Shape) {}, ""},
		{"other names", func(m *Shape) { m.Name, m.Architecture, m.Context = "x", "y", 99 }, ""},
		{"unknown weights", func(m *Shape) { m.WeightsSHA256 = "" }, ""},
		{"upper case", func(m *Shape) { m.WeightsSHA256 = strings.ToUpper(a) }, ""},
		{"layers", func(m *Shape) { m.Layers = 3 }, "the plan is for another model: layers is 2 in the plan and 3 in the model"},
		{"weights", func(m *Shape) { m.WeightsSHA256 = b },
			"the plan is for another model: weights_sha256 is " + a + " in the plan and " + b + " in the model"},
		{"heads", func(m *Shape) { m.QueryHeads, m.KVHeads, m.HeadDim = 8, 4, 32 },
			"the plan is for another model: query_heads is 4 in the plan and 8 in the model; " +
				"kv_heads is 2 in the plan and 4 in the model; head_dim is 64 in the plan and 32 in the model"},
	} {
		other := m
		c.change(&other)
		err := p.Check(other)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if _, ok := errors.AsType[*MismatchError](err); !ok || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestParseUnderstandsEverySpec(t *testing.T) {
	m := Shape{Layers: 2, QueryHeads: 4, KVHeads: 2, HeadDim: 64}
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	named := write("a.json", example)
	unnamed := write("b-1.json", strings.Replace(example, `"name": "half",`, ``, 1))
	other := write("c.json", strings.Replace(example, `"head_dim": 64`, `"head_dim": 32`, 1))
	badName := write("b 1.json", strings.Replace(example, `"name": "half",`, ``, 1))

	for _, c := range []struct {
		spec, name string
		rule       Rule
		span       Span
		floor      int
	}{
		{"dense", "dense", Dense, SpanPosition, 2048},
		{"uniform:50%", "uniform-50", Rule{0, 0.5}, SpanPosition, 2048},
		{"uniform:100%", "uniform-100", Dense, SpanPosition, 2048},
		{"uniform:12.5%,floor=4096", "uniform-12.5-floor-4096", Rule{0, 0.125}, SpanPosition, 4096},
		{"uniform:50%,span=length", "uniform-50-span-length", Rule{0, 0.5}, SpanLength, 2048},
		{named, "half", Rule{512, 0.25}, SpanPosition, 2048},
		{unnamed, "b-1", Rule{512, 0.25}, SpanPosition, 2048},
	} {
		p, err := Parse(c.spec, m)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		if p.Name != c.name || p.Rules[p.Heads[0][0]] != c.rule || p.Span != c.span || p.Floor != c.floor || p.Check(m) != nil {
			t.Errorf("%s gives %+v", c.spec, p)
		}
		if _, err := p.Encode(); err != nil {
			t.Errorf("%s cannot be written: %v", c.spec, err)
		}
	}

	for spec, want := range map[string]string{
		"uniform:50":               "not a percentage",
		"uniform:0%":               "not a percentage",
		"uniform:101%":             "not a percentage",
		"uniform:NaN%":             "not a percentage",
		"uniform:50%,floor=1000":   "floor is 1000",
		"uniform:50%,floor=x":      "not a number",
		"uniform:50%,span=query":   "span is",
		"uniform:50%,bottom=4":     "unknown option",
		"sparse":                   "neither dense",
		filepath.Join(dir, "none"): "no such file",
		dir:                        "reading the plan",
		other:                      "head_dim is 32 in the plan and 64 in the model",
		badName:                    "has no name",
	} {
		if p, err := Parse(spec, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %+v, %v; want an error with %q", spec, p, err, want)
		}
	}
}

func TestUniformDensityCountsTheSink(t *testing.T) {
	p, err := Parse("uniform:50%", Shape{Layers: 1, QueryHeads: 1, KVHeads: 1, HeadDim: 64})
	if err != nil {
		t.Fatal(err)
	}
	for tokens, want := range map[int]float64{0: 1, 1: 1, 1024: 1, 2048: 17.0 / 32, 8192: 65.0 / 128} {
		if got := p.Density(tokens); got != want {
			t.Errorf("density at %d tokens is %v, want %v", tokens, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(strings.Replace(example, "position", "length", 1)))
	f.Add([]byte(`{"format":"moaserve.plan/1","heads":[[]]}`))
	f.Add([]byte(`{"alphas":[[0,-1024]],"betas":[[1,0.5]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := Shape{Layers: 1, QueryHeads: 2, KVHeads: 1, HeadDim: 64}
		if p, _, err := ImportUpstream(data, m); err == nil && p.Check(m) != nil {
			t.Error("an imported plan does not fit its model")
		}
		p, err := Decode(data)
		if err != nil {
			if _, ok := errors.AsType[*FormatError](err); !ok {
				t.Fatalf("not a FormatError: %v", err)
			}
			return
		}
		again, err := p.Encode()
		if err != nil {
			t.Fatalf("a decoded plan cannot be encoded: %v", err)
		}
		q, err := Decode(again)
		if err != nil {
			t.Fatalf("an encoded plan cannot be decoded: %v", err)
		}
		if diff := cmp.Diff(p, q); diff != "" {
			t.Fatalf("the round trip changed the plan:\n%s", diff)
		}
		if p.Bind(5000).Pages(5000) < p.Bind(5000).Heads() {
			t.Fatal("a head holds no page")
		}
	})
}

func TestTheDocumentedExampleIsAPlan(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "plan-format.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```json\n")
	data, _, _ := strings.Cut(rest, "```")
	p, err := Decode([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	for tokens, stated := range p.Densities {
		if got := p.Density(tokens); math.Abs(got-stated) > 5e-4 { // stated to three decimals
			t.Errorf("density at %d tokens is %.4f, the example states %v", tokens, got, stated)
		}
	}
}
