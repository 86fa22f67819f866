package backendtest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/weights"
)

// answerCases look at the rows of a batch.
func (s *suite) answerCases() []testCase {
	cases := []testCase{
		{"only the rows that are asked for are answered", s.rows},
		{"kept logits are the caller's", s.keptLogits},
	}
	for name, p := range samplings() {
		cases = append(cases, testCase{"samples like the reference sampler: " + name, func(t testing.TB) { s.sampling(t, p) }})
	}
	slices.SortFunc(cases, func(a, b testCase) int { return strings.Compare(a.name, b.name) })
	return cases
}

// rows asks for some tokens of a batch, out of order, and for none.
func (s *suite) rows(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	kv := s.o.KV[0]
	dev := s.load(t, m, src, kv)
	l := plans(m)["mixed"].Bind(70)
	a, b := tokens(70, m.Vocab, 13), tokens(70, m.Vocab, 14)
	wantA, wantB := s.alone(t, dev, l, a, 70), s.alone(t, dev, l, b, 70)

	d := drive(t, dev, 2*l.PeakPages(0, 70, 70))
	x, y := d.start(3, l, a), d.start(1, l, b)
	batch := d.batch(chunk{x, 65}, chunk{y, 70})
	batch.Rows = []backend.Row{
		{Seq: 1, Token: 69, KeepLogits: true},
		{Seq: 0, Token: 64},
		{Seq: 0, Token: 2, KeepLogits: true},
		{Seq: 1, Token: 0, Sampler: sample.New(sample.Params{}, nil), KeepLogits: true},
		{Seq: 0, Token: 64, Sampler: sample.New(sample.Params{}, nil)},
	}
	r := d.compute(batch)
	if r.Logits[1] != nil || r.Logits[4] != nil {
		t.Errorf("rows without KeepLogits have logits")
	}
	s.same(t, "rows out of order", [][]float32{r.Logits[0], r.Logits[2], r.Logits[3]}, [][]float32{wantB[69], wantA[2], wantB[0]}, kv, weights.F32, m.Layers)
	if !s.isArgmax(wantB[0], r.Choices[3].ID) || !s.isArgmax(wantA[64], r.Choices[4].ID) {
		t.Errorf("greedy rows chose %d and %d", r.Choices[3].ID, r.Choices[4].ID)
	}
	x.kv.Advance()
	y.kv.Advance()

	// A chunk in the middle of a prompt has no rows at all, and counts all the same.
	d.compute(d.batch(chunk{x, 4}))
	x.kv.Advance()
	last := d.batch(chunk{x, 1})
	last.Rows = []backend.Row{{KeepLogits: true}}
	s.same(t, "after a batch without rows", d.compute(last).Logits, wantA[69:], kv, weights.F32, m.Layers)
	x.kv.Release()
	y.kv.Release()
	d.close()
}

// isArgmax reports whether a token is the likeliest. A backend that rounds may
// choose another that is as good within the tolerance.
func (s *suite) isArgmax(logits []float32, id int32) bool {
	if id < 0 || int(id) >= len(logits) {
		return false
	}
	if !s.o.Rounds {
		return int(id) == slices.Index(logits, slices.Max(logits))
	}
	size := 0.0
	for _, x := range logits {
		size += float64(x) * float64(x)
	}
	slack := s.o.tolerance(s.o.KV[0], weights.F32, 2) * math.Sqrt(size)
	return float64(slices.Max(logits)-logits[id]) <= slack
}

// keptLogits reads logits after a sampler has used the row, which it overwrites.
func (s *suite) keptLogits(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	kv := s.o.KV[0]
	dev := s.load(t, m, src, kv)
	l := plans(m)["mixed"].Bind(20)
	prompt := tokens(20, m.Vocab, 15)
	want := s.alone(t, dev, l, prompt, 20)
	d := drive(t, dev, l.PeakPages(0, 20, 20))
	x := d.start(0, l, prompt)
	b := d.batch(chunk{x, 20})
	p := sample.Params{Temperature: 2, TopK: 3, RepetitionPenalty: 1.5, LogitBias: map[int32]float32{1: 50}}
	b.Rows = []backend.Row{{Token: 19, Sampler: sample.New(p, prompt), KeepLogits: true}}
	r := d.compute(b)
	s.same(t, "beside a sampler", r.Logits, want[19:], kv, weights.F32, m.Layers)
	x.kv.Advance()
	x.kv.Release()
	d.close()
}

// samplings are parameters that use every part of a sampler.
func samplings() map[string]sample.Params {
	return map[string]sample.Params{
		"greedy":      {},
		"temperature": {Temperature: 1, Seed: 1},
		"truncation":  {Temperature: 1.3, TopK: 20, TopP: 0.9, MinP: 0.02, Seed: 2},
		"penalties":   {Temperature: 0.7, PresencePenalty: 1, FrequencyPenalty: 0.5, RepetitionPenalty: 1.2, Seed: 3},
		"biases":      {LogitBias: map[int32]float32{3: 2, 5: -100, 7: 1.5}},
		"logprobs":    {Temperature: 1, Seed: 4, Logprobs: true, TopLogprobs: 5},
		"min tokens":  {MinTokens: 4, Stop: allTokens(0, 128)},
	}
}

func allTokens(from, to int32) []int32 {
	var ids []int32
	for id := from; id < to; id++ {
		ids = append(ids, id)
	}
	return ids
}

// sampling generates tokens and holds each against the reference sampler on the
// logits that the device kept. Every third token is masked.
func (s *suite) sampling(t testing.TB, p sample.Params) {
	const generated = 12
	m, src := modeltest.New(t, s.small())
	kv := s.o.KV[0]
	dev := s.load(t, m, src, kv)
	l := plans(m)["mixed"].Bind(70 + generated)
	prompt := tokens(60, m.Vocab, 16)
	d := drive(t, dev, l.PeakPages(0, 60+generated, 60))
	x := d.start(0, l, prompt)
	tested, twin := sample.New(p, prompt), sample.New(p, prompt)
	for i := range generated {
		n := len(x.tokens) - x.kv.Len()
		b := d.batch(chunk{x, n})
		var mask []uint32
		if i%3 == 2 {
			mask = make([]uint32, (m.Vocab+31)/32)
			for _, id := range []int{9, 33, 100, 200, 255} {
				mask[id/32] |= 1 << (id % 32)
			}
		}
		b.Rows = []backend.Row{{Token: n - 1, Sampler: tested, Mask: mask, KeepLogits: true}}
		r := d.compute(b)
		x.kv.Advance()
		got, want := r.Choices[0], twin.Sample(slices.Clone(r.Logits[0]), mask)
		if err := sameChoice(got, want); err != nil {
			t.Fatalf("token %d: %v", i, err)
		}
		x.tokens = append(x.tokens, got.ID)
	}
	x.kv.Release()
	d.close()
}

// sameChoice compares two choices. Log-probabilities are sums of exponentials in
// float32 over a few hundred tokens; 1e-4 is far above their error and far below
// any use of them.
func sameChoice(got, want sample.Choice) error {
	const tolerance = 1e-4
	if got.ID != want.ID || math.Abs(float64(got.Logprob-want.Logprob)) > tolerance || len(got.Top) != len(want.Top) {
		return fmt.Errorf("chose %+v, want %+v", got, want)
	}
	for i := range want.Top {
		if got.Top[i].ID != want.Top[i].ID || math.Abs(float64(got.Top[i].Logprob-want.Top[i].Logprob)) > tolerance {
			return fmt.Errorf("alternative %d is %+v, want %+v", i, got.Top[i], want.Top[i])
		}
	}
	return nil
}
