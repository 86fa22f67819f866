package engine_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The model of all tests: four heads, and a vocabulary in which tokens repeat.
const (
	layers, kvHeads, vocab, contextTokens = 2, 2, 97, 4096
)

var shape = plan.Shape{Layers: layers, KVHeads: kvHeads}

func fakeModel() *model.Model {
	return &model.Model{Config: model.Config{Layers: layers, KVHeads: kvHeads, Vocab: vocab, Context: contextTokens}}
}

// mixed is a plan with one head of each kind: dense, one block, fixed, growing.
func mixed(span plan.Span) *plan.Plan {
	p := plan.Uniform("mixed", shape, plan.Dense)
	p.Span, p.Floor = span, 2*plan.BlockSize
	p.Rules = []plan.Rule{plan.Dense, {}, {Alpha: 128}, {Alpha: -64, Beta: 0.5}}
	p.Heads = [][]int{{0, 1}, {2, 3}}
	return p
}

// prompt returns n tokens that depend on seed.
func prompt(n int, seed uint64) []int32 {
	out := make([]int32, n)
	for i := range out {
		seed = seed*6364136223846793005 + 1442695040888963407
		out[i] = int32(seed >> 33 % vocab)
	}
	return out
}

// answer computes what a request must generate, run alone and without pages.
func answer(req engine.Request, total, tokens int) []int32 {
	return backendtest.FakeAnswer(layers, kvHeads, vocab, req.Plan.Bind(total), req.Prompt,
		sample.New(req.Sampling, req.Prompt), tokens, req.Stop)
}

// rig is an engine whose steps a test lets happen one by one. It runs in a
// synctest bubble, so that "nothing happens any more" can be waited for.
type rig struct {
	*testing.T
	*engine.Engine
	fake  *backendtest.Fake
	allow chan error // one value a step: its error, or nil to compute

	mu    sync.Mutex
	steps [][]part // as the device saw them, the one that waits included
	cost  func(tokens int) time.Duration
	all   bool // allow is closed
}

// part is what a test wants to know of a backend.Seq.
type part struct{ Start, Len int }

// inRig runs a test of an engine under a bubble.
func inRig(t *testing.T, o engine.Options, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, o)
		t.Cleanup(func() {
			r.allowAll() // whatever is left runs to its end
			if err := r.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if s := r.Stats(); s.UsedPages != 0 || s.CommittedPages != 0 || s.Running != 0 || s.Waiting != 0 {
				t.Errorf("after Close: %+v", s)
			}
		})
		test(r)
	})
}

func newRig(t *testing.T, o engine.Options) *rig {
	t.Helper()
	r := &rig{T: t, allow: make(chan error)}
	if o.Pages == 0 {
		o.Pages = 1000
	}
	if o.MaxSequences == 0 {
		o.MaxSequences = 8
	}
	r.fake = backendtest.NewFake(layers, kvHeads, vocab, backend.Options{
		MaxBatchTokens: max(o.StepTokens, engine.DefaultStepTokens), MaxSequences: o.MaxSequences,
	})
	r.fake.Before = func(b *backend.Batch) error {
		var parts []part
		for _, s := range b.Seqs {
			parts = append(parts, part{s.Start, s.Len})
		}
		r.mu.Lock()
		r.steps = append(r.steps, parts)
		cost := r.cost
		r.mu.Unlock()
		if cost != nil {
			time.Sleep(cost(len(b.Tokens)))
		}
		return <-r.allow
	}
	e, err := engine.New(r.fake, fakeModel(), o)
	if err != nil {
		t.Fatal(err)
	}
	r.Engine = e
	return r
}

// submit queues a request that must be accepted.
func (r *rig) submit(req engine.Request) *engine.Stream {
	r.Helper()
	return r.submitCtx(r.Context(), req)
}

func (r *rig) submitCtx(ctx context.Context, req engine.Request) *engine.Stream {
	r.Helper()
	if req.Plan == nil {
		req.Plan = mixed(plan.SpanPosition)
	}
	s, err := r.Submit(ctx, req)
	if err != nil {
		r.Fatalf("Submit: %v", err)
	}
	synctest.Wait()
	return s
}

// step lets n steps happen and waits for the next to be built.
func (r *rig) step(n int) {
	for range n {
		r.allow <- nil
		synctest.Wait()
	}
}

// takes gives steps a length, in the bubble's time.
func (r *rig) takes(cost func(tokens int) time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cost = cost
}

// allowAll lets all further steps happen.
func (r *rig) allowAll() {
	if !r.all {
		r.all = true
		close(r.allow)
	}
}

// failStep lets the step that waits fail.
func (r *rig) failStep(err error) {
	r.allow <- err
	synctest.Wait()
}

// pending returns the step that the device was given latest.
func (r *rig) pending() []part {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.steps) == 0 {
		return nil
	}
	return r.steps[len(r.steps)-1]
}

// stepsSeen returns how many steps the device was given.
func (r *rig) stepsSeen() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps)
}

// wantPending compares the step that waits.
func (r *rig) wantPending(want ...part) {
	r.Helper()
	if got := r.pending(); !slices.Equal(got, want) {
		r.Fatalf("the step has the parts %v, want %v", got, want)
	}
}

// outcome is everything that a stream delivered.
type outcome struct {
	tokens    []int32
	processed []int
	logits    [][]float32
	admitted  int
	last      engine.Event
	order     []engine.Kind
}

// drain reads a stream to its end.
func drain(s *engine.Stream) outcome {
	var o outcome
	for {
		e, ok := s.Next()
		if !ok {
			return o
		}
		o.order = append(o.order, e.Kind)
		o.last = e
		switch e.Kind {
		case engine.KindAdmitted:
			o.admitted++
		case engine.KindProgress:
			o.processed = append(o.processed, e.Processed)
			o.logits = append(o.logits, e.Logits...)
		case engine.KindToken:
			o.tokens = append(o.tokens, e.Choice.ID)
		}
	}
}
