package backendtest

import (
	"fmt"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// small is the model that most cases use: two layers of two KV heads, each shared
// by two query heads, in float32 so that only the cache is rounded.
func (s *suite) small() modeltest.Options {
	return modeltest.Options{Hidden: 128, Heads: 4, KVHeads: 2, HeadDim: s.o.HeadDim, FFN: 256, Vocab: 256, Seed: 1}
}

// typed is small with weights of a type, and wide enough for its blocks.
func (s *suite) typed(w weights.Type, seed uint64) modeltest.Options {
	o := s.small()
	o.Type, o.Seed = w, seed
	o.Hidden = max(o.Hidden, w.BlockElems())
	o.Heads = max(o.Heads, w.BlockElems()/o.HeadDim)
	return o
}

// plans returns the plans under which everything is compared, for a model.
func plans(m *model.Model) map[string]*plan.Plan {
	shape := m.Shape()
	rules := []plan.Rule{plan.Dense, {}, {Alpha: 2 * plan.BlockSize}, {Alpha: -plan.BlockSize, Beta: 0.6}}
	// Low floors let spans be short in prompts of a few blocks.
	mixed := plan.Uniform("mixed", shape, plan.Dense)
	mixed.Floor, mixed.Rules = 2*plan.BlockSize, rules
	for i, layer := range mixed.Heads {
		for h := range layer {
			layer[h] = (i*len(layer) + h) % len(rules)
		}
	}
	byLength := *mixed
	byLength.Name, byLength.Span = "by length", plan.SpanLength
	byLength.Rules = []plan.Rule{plan.Dense, {}, {Alpha: 3 * plan.BlockSize}, {Beta: 0.125}}
	one := plan.Uniform("one block", shape, plan.Rule{})
	one.Floor = 0
	return map[string]*plan.Plan{"dense": plan.NewDense(shape), "mixed": mixed, "by length": &byLength, "one block": one}
}

// reference computes the logits in float64, with keys and values rounded as in a
// cache of 16 bits. They stay as they are for q8_0 and fp8, whose rounding of a number
// depends on its block or page.
func reference(t testing.TB, m *model.Model, src weights.Source, kv backend.KVType, l *plan.Layout, tokens []int32) [][]float64 {
	t.Helper()
	r, err := model.NewReference(m, src)
	if err != nil {
		t.Fatalf("the reference: %v", err)
	}
	switch kv {
	case backend.KVF16:
		r.RoundKV = model.RoundF16
	case backend.KVBF16:
		r.RoundKV = model.RoundBF16
	}
	logits, err := r.Logits(tokens, l)
	if err != nil {
		t.Fatalf("the reference: %v", err)
	}
	return logits
}

// referenceCases compare with the float64 reference.
func (s *suite) referenceCases() []testCase {
	var cases []testCase
	add := func(name string, o modeltest.Options, kv backend.KVType, planName string, n int) {
		cases = append(cases, testCase{"answers like the reference: " + name, func(t testing.TB) {
			m, src := modeltest.New(t, o)
			l := plans(m)[planName].Bind(n)
			prompt := tokens(n, m.Vocab, o.Seed)
			got := s.alone(t, s.load(t, m, src, kv), l, prompt, maxBatchTokens)
			near(t, fmt.Sprintf("%d tokens", n), got, reference(t, m, src, kv, l, prompt), s.o.tolerance(kv, o.Type, m.Layers))
		}})
	}
	kv := s.o.KV[0]
	float := func(o modeltest.Options) modeltest.Options { o.Type = weights.F32; return o }
	for _, name := range []string{"dense", "mixed", "by length", "one block"} {
		add("plan "+name, float(s.small()), kv, name, 330)
	}
	for _, n := range []int{1, 2, 63, 64, 65, 129} {
		add(fmt.Sprintf("prompt of %d", n), float(s.small()), kv, "mixed", n)
	}
	for _, architecture := range []string{"llama", "mistral", "qwen2", "qwen3"} {
		o := float(s.small())
		o.Architecture, o.Seed = architecture, 2
		add("architecture "+architecture, o, kv, "mixed", 200)
	}
	for _, group := range []int{1, 3, 8} {
		o := float(s.small())
		o.Heads, o.Seed = o.KVHeads*group, 3
		add(fmt.Sprintf("%d query heads a KV head", group), o, kv, "mixed", 200)
	}
	tied := float(s.small())
	tied.Tied, tied.Seed = true, 4
	add("tied embeddings", tied, kv, "mixed", 100)
	for _, kv := range s.o.KV {
		add(fmt.Sprintf("cache of type %d", kv), float(s.small()), kv, "mixed", 200)
	}
	for _, w := range s.o.Types {
		o := s.typed(w, 5)
		add(fmt.Sprintf("weights of type %v", w), o, kv, "mixed", 140)
	}
	return append(cases, testCase{"answers like the reference: a long prompt", s.longPrompt})
}

// longPrompt is the length at which positions, tables and sums grow large: one
// layer and one head, so that the reference can follow.
func (s *suite) longPrompt(t testing.TB) {
	if testing.Short() {
		t.Skip("the reference takes seconds for 8192 tokens")
	}
	const n = 8192
	o := modeltest.Options{Layers: 1, Hidden: 64, Heads: 1, KVHeads: 1, HeadDim: s.o.HeadDim, FFN: 64, Vocab: 64, Context: n, Seed: 6}
	m, src := modeltest.New(t, o)
	p := plan.Uniform("half", m.Shape(), plan.Rule{Alpha: plan.BlockSize, Beta: 0.4})
	l := p.Bind(n)
	prompt := tokens(n, m.Vocab, 6)
	kv := s.o.KV[0]
	got := s.alone(t, s.load(t, m, src, kv), l, prompt, maxBatchTokens)
	near(t, "8192 tokens", got, reference(t, m, src, kv, l, prompt), s.o.tolerance(kv, weights.F32, m.Layers))
}
