package backendtest

import (
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/sample"
)

// aheadCases are for devices that work ahead. Others pass them.
func (s *suite) aheadCases() []testCase {
	return []testCase{
		{"steps begun ahead choose what steps in turn choose", s.ahead},
		{"at most two steps are under way", s.underWay},
	}
}

// pair is two sequences that decode side by side.
type pair struct {
	*driver
	seqs     [2]*sequence
	samplers [2]*sample.Sampler
	chosen   [2][]int32
}

// decodePair computes two prompts, whose tokens are greedy and drawn, and depend on
// those before them.
func (s *suite) decodePair(t testing.TB, dev backend.Device) *pair {
	m, _ := modeltest.New(t, s.small())
	l := plans(m)["mixed"].Bind(100)
	p := &pair{driver: drive(t, dev, 2*l.PeakPages(0, 100, 60))}
	params := [2]sample.Params{
		{Logprobs: true, TopLogprobs: 3, RepetitionPenalty: 1.3, FrequencyPenalty: 0.5, MinTokens: 9, Stop: allTokens(0, 128)},
		{Temperature: 1, TopK: 40, TopP: 0.9, Seed: 7, PresencePenalty: 1, LogitBias: map[int32]float32{3: 2, 5: -100}},
	}
	var chunks []chunk
	for i, n := range []int{60, 51} {
		prompt := tokens(n, m.Vocab, uint64(21+i))
		p.seqs[i], p.samplers[i] = p.start(2-i, l, prompt), sample.New(params[i], prompt)
		chunks = append(chunks, chunk{p.seqs[i], n})
	}
	b := p.batch(chunks...)
	for i, x := range p.seqs {
		b.Rows = append(b.Rows, backend.Row{Seq: i, Token: len(x.tokens) - 1, Sampler: p.samplers[i]})
	}
	p.take(p.compute(b))
	p.advance(false)
	return p
}

// take notes a step's choices.
func (p *pair) take(r *backend.Result) {
	for i := range p.seqs {
		p.chosen[i] = append(p.chosen[i], r.Choices[i].ID)
	}
}

// advance goes on behind a step whose choices are known, or, ahead, only named.
func (p *pair) advance(ahead bool) {
	for i, x := range p.seqs {
		x.kv.Advance()
		id := backend.ChoiceOf(i)
		if !ahead {
			id = p.chosen[i][len(p.chosen[i])-1]
		}
		x.tokens = append(x.tokens, id)
	}
}

// next lays out the step that decodes the latest token of both.
func (p *pair) next() *backend.Batch {
	b := p.batch(chunk{p.seqs[0], 1}, chunk{p.seqs[1], 1})
	for i := range p.seqs {
		b.Rows = append(b.Rows, backend.Row{Seq: i, Sampler: p.samplers[i]})
	}
	return b
}

func (p *pair) release() {
	for _, x := range p.seqs {
		x.kv.Release()
	}
	p.close()
}

func (s *suite) ahead(t testing.TB) {
	const steps = 25 // into the next block, and back pages
	m, src := modeltest.New(t, s.small())
	dev := s.load(t, m, src, s.o.KV[0])
	device, ok := dev.(backend.Ahead)
	if !ok {
		return
	}
	inTurn := s.decodePair(t, dev)
	for range steps {
		inTurn.take(inTurn.compute(inTurn.next()))
		inTurn.advance(false)
	}
	inTurn.release()

	p := s.decodePair(t, dev)
	for i := range steps {
		onDevice, err := device.Begin(p.next())
		if err != nil {
			t.Fatalf("Begin of step %d: %v", i, err)
		}
		if !onDevice {
			t.Fatalf("step %d, greedy and drawn, is not chosen on the device", i)
		}
		if i > 0 {
			p.end(device)
		}
		p.advance(true)
	}
	p.end(device)
	for i := range p.chosen {
		if !slices.Equal(p.chosen[i], inTurn.chosen[i]) {
			t.Errorf("sequence %d: ahead %v, in turn %v", i, p.chosen[i], inTurn.chosen[i])
		}
	}
	p.release()
}

// end takes the answer of the oldest step.
func (p *pair) end(device backend.Ahead) {
	p.Helper()
	r, err := device.End()
	if err != nil {
		p.Fatalf("End: %v", err)
	}
	p.take(r)
}

func (s *suite) underWay(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	dev := s.load(t, m, src, s.o.KV[0])
	device, ok := dev.(backend.Ahead)
	if !ok {
		return
	}
	if _, err := device.End(); err == nil {
		t.Errorf("End without a step has an answer")
	}
	p := s.decodePair(t, dev)
	for range 2 {
		if _, err := device.Begin(p.next()); err != nil {
			t.Fatalf("Begin: %v", err)
		}
		p.advance(true)
	}
	refused := func(what string, b *backend.Batch) {
		t.Helper()
		if _, err := device.Begin(b); err == nil {
			t.Errorf("%s began", what)
		}
	}
	b := &backend.Batch{Tokens: []int32{1}, Seqs: []backend.Seq{{Len: 1, Layout: p.seqs[0].layout}}}
	refused("a third step", b)
	if _, err := dev.Step(b); err == nil {
		t.Errorf("Step was computed beside steps under way")
	}
	p.end(device)
	refused("a step with the choice of a row that does not exist", &backend.Batch{
		Tokens: []int32{backend.ChoiceOf(2)}, Seqs: []backend.Seq{{Slot: 2, Len: 1, Start: p.seqs[0].kv.Len(), Layout: p.seqs[0].layout}},
	})
	p.end(device)
	refused("a step with the choice of one that has ended", &backend.Batch{
		Tokens: []int32{backend.ChoiceOf(0)}, Seqs: []backend.Seq{{Slot: 2, Len: 1, Start: p.seqs[0].kv.Len(), Layout: p.seqs[0].layout}},
	})
	p.release()
}
