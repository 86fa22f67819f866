package backendtest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// invarianceCases compare a backend with itself: neither chunks nor batches nor
// the way in which a plan is written may show in an answer.
func (s *suite) invarianceCases() []testCase {
	var cases []testCase
	kinds := []weights.Type{weights.F32}
	for _, w := range s.o.Types {
		if !w.Float() { // activations are rounded, too: one such type stands for all
			kinds = append(kinds, w)
			break
		}
	}
	for _, w := range kinds {
		cases = append(cases,
			testCase{fmt.Sprintf("chunks do not show, weights %v", w), func(t testing.TB) { s.chunks(t, w) }},
			testCase{fmt.Sprintf("batches do not show, weights %v", w), func(t testing.TB) { s.batches(t, w) }})
	}
	return append(cases, testCase{"dense is a plan like others", s.dense})
}

// chunks computes one prompt in different pieces.
func (s *suite) chunks(t testing.TB, w weights.Type) {
	m, src := modeltest.New(t, s.typed(w, 7))
	kv := s.o.KV[0]
	dev := s.load(t, m, src, kv)
	prompt := tokens(150, m.Vocab, 8)
	for _, name := range []string{"dense", "mixed", "by length"} {
		l := plans(m)[name].Bind(len(prompt))
		want := s.alone(t, dev, l, prompt, maxBatchTokens)
		for _, n := range []int{1, 7, 64, 65} {
			got := s.alone(t, dev, l, prompt, n)
			s.same(t, fmt.Sprintf("plan %s in chunks of %d", name, n), got, want, kv, w, m.Layers)
		}
	}
}

// batches computes several sequences in changing company.
func (s *suite) batches(t testing.TB, w weights.Type) {
	m, src := modeltest.New(t, s.typed(w, 7))
	kv := s.o.KV[0]
	dev := s.load(t, m, src, kv)
	rng := rand.New(rand.NewPCG(9, 9))
	var layouts []*plan.Layout
	var prompts [][]int32
	var want [][][]float32
	pages := 0
	for i, name := range []string{"dense", "mixed", "by length", "one block", "mixed"} {
		prompt := tokens(60+50*i, m.Vocab, uint64(i))
		l := plans(m)[name].Bind(len(prompt))
		layouts, prompts = append(layouts, l), append(prompts, prompt)
		want = append(want, s.alone(t, dev, l, prompt, 100))
		pages += l.PeakPages(0, len(prompt), maxBatchTokens)
	}
	d := drive(t, dev, pages)
	var running []*sequence
	for i := range prompts {
		running = append(running, d.start((i+2)%maxSequences, layouts[i], prompts[i]))
	}
	all := append([]*sequence(nil), running...)
	for len(running) > 0 {
		var chunks []chunk
		left := maxBatchTokens
		rng.Shuffle(len(running), func(i, j int) { running[i], running[j] = running[j], running[i] })
		for _, x := range running[:1+rng.IntN(len(running))] {
			n := min(left, len(x.tokens)-x.kv.Len(), []int{1, 1, 5, 64, 90}[rng.IntN(5)])
			if n > 0 {
				chunks = append(chunks, chunk{x, n})
				left -= n
			}
		}
		d.step(chunks...)
		still := running[:0]
		for _, x := range running {
			if x.kv.Len() < len(x.tokens) {
				still = append(still, x)
			} else {
				x.kv.Release()
			}
		}
		running = still
	}
	d.close()
	for i, x := range all {
		s.same(t, fmt.Sprintf("sequence %d, plan %s, among others", i, layouts[i].Plan().Name), x.logits, want[i], kv, w, m.Layers)
	}
}

// dense compares plans that let every head see everything.
func (s *suite) dense(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	kv := s.o.KV[0]
	dev := s.load(t, m, src, kv)
	prompt := tokens(200, m.Vocab, 10)
	want := s.alone(t, dev, plan.NewDense(m.Shape()).Bind(len(prompt)), prompt, maxBatchTokens)
	length := plan.Uniform("by length", m.Shape(), plan.Dense)
	length.Span = plan.SpanLength
	short := plan.Uniform("longer than the prompt", m.Shape(), plan.Rule{Alpha: 4 * plan.BlockSize})
	short.Floor = 0
	for _, p := range []*plan.Plan{
		plan.Uniform("beta 1", m.Shape(), plan.Rule{Beta: 1}),
		plan.Uniform("alpha and beta 1", m.Shape(), plan.Rule{Alpha: 640, Beta: 1}),
		plan.Uniform("floor beyond the prompt", m.Shape(), plan.Rule{Beta: 0.25}), // a quarter of 2048 tokens
		length, short,
	} {
		got := s.alone(t, dev, p.Bind(len(prompt)), prompt, maxBatchTokens)
		s.same(t, "plan "+p.Name, got, want, kv, weights.F32, m.Layers)
	}
}

// pageCases reuse pages and slots.
func (s *suite) pageCases() []testCase {
	return []testCase{
		{"pages are recycled between sequences", func(t testing.TB) { s.recycle(t, false) }},
		{"pages full of NaN are recycled", func(t testing.TB) { s.recycle(t, true) }},
		{"a sequence of NaN leaves its neighbours alone", s.poisonedNeighbour},
		{"a shared prefix answers like one computed anew", s.sharedPrefix},
	}
}

// recycle lets sequences of another kind fill every page and every table before
// two others, side by side, are compared with what they answer in a fresh pool.
func (s *suite) recycle(t testing.TB, poison bool) {
	const n = 200
	m, src := modeltest.New(t, s.small())
	kv := s.o.KV[0]
	dev := s.load(t, m, poisoned(t, m, src), kv)
	prompts := [][]int32{tokens(n, m.Vocab-1, 11), tokens(n, m.Vocab-1, 12)}
	for _, name := range []string{"dense", "mixed", "one block"} {
		l := plans(m)[name].Bind(n)
		var want [][][]float32
		for _, prompt := range prompts {
			want = append(want, s.alone(t, dev, l, prompt, 80))
		}
		d := drive(t, dev, 2*l.PeakPages(0, n, 80))
		for slot := range prompts {
			// Dense, so that the whole pool is written, to the last full block.
			full := d.pages.Pages() / l.Heads() * plan.BlockSize
			dirt := tokens(full, m.Vocab-1, uint64(slot))
			for i := range dirt {
				if poison {
					dirt[i] = int32(m.Vocab - 1)
				}
			}
			d.finish(d.start(slot, plan.NewDense(m.Shape()).Bind(full), dirt), maxBatchTokens)
		}
		x, y := d.start(0, l, prompts[0]), d.start(1, l, prompts[1])
		for range n / 40 {
			d.step(chunk{x, 40}, chunk{y, 40})
		}
		for i, got := range []*sequence{x, y} {
			got.kv.Release()
			s.same(t, fmt.Sprintf("plan %s in used pages, sequence %d", name, i), got.logits, want[i], kv, weights.F32, m.Layers)
		}
		d.close()
	}
}

// poisonedNeighbour computes a sequence in the same batches as one whose every
// number is NaN.
func (s *suite) poisonedNeighbour(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	kv := s.o.KV[0]
	dev := s.load(t, m, poisoned(t, m, src), kv)
	l := plans(m)["mixed"].Bind(200)
	prompt := tokens(200, m.Vocab-1, 12)
	want := s.alone(t, dev, l, prompt, 50)
	d := drive(t, dev, 2*l.PeakPages(0, 200, 50))
	poison := make([]int32, 200)
	for i := range poison {
		poison[i] = int32(m.Vocab - 1)
	}
	bad, good := d.start(0, l, poison), d.start(1, l, prompt)
	for range 4 {
		d.step(chunk{bad, 50}, chunk{good, 50})
	}
	bad.kv.Release()
	good.kv.Release()
	d.close()
	s.same(t, "beside a sequence of NaN", good.logits, want, kv, weights.F32, m.Layers)
	if x := bad.logits[199][0]; x == x {
		t.Errorf("the poisoned sequence answered %v: NaN was lost on the way", x)
	}
}

// poisonedSource turns the embedding of the last token into NaN.
type poisonedSource struct {
	weights.Source
	embedding weights.Tensor
}

var _ weights.Source = poisonedSource{}

func poisoned(t testing.TB, m *model.Model, src weights.Source) weights.Source {
	t.Helper()
	e, err := m.Tensor(src, model.TokenEmbedding, 0)
	if err != nil || e.Type != weights.F32 {
		t.Fatalf("the embedding is %v, %v", e.Type, err)
	}
	e.Data = append([]byte(nil), e.Data...)
	for i := len(e.Data) - 4*m.Hidden; i < len(e.Data); i++ {
		e.Data[i] = 0xff
	}
	return poisonedSource{src, e}
}

func (p poisonedSource) Tensor(name string) (weights.Tensor, bool) {
	if name == p.embedding.Name {
		return p.embedding, true
	}
	return p.Source.Tensor(name)
}
