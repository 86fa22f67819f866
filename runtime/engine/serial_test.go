package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
)

// job is a request of the random test with what must come of it.
type job struct {
	req         engine.Request
	cancelAfter int // events; 0 means never
	want        []int32
	refusal     error
}

// drawJob draws a request. In a storm, all of them grow until the context or the
// pages end: nothing but preemption lets them finish.
func drawJob(t *rapid.T, o engine.Options, storm bool) job {
	req := engine.Request{
		Prompt: prompt(rapid.SampledFrom([]int{1, 2, 30, 63, 64, 65, 90, 128, 140, 200, 300}).Draw(t, "prompt"), rapid.OneOf(rapid.Uint64Range(1, 2), rapid.Uint64()).Draw(t, "seed")), // some begin alike
		Plan: rapid.SampledFrom([]*plan.Plan{
			mixed(plan.SpanPosition), mixed(plan.SpanLength), plan.NewDense(shape), plan.Uniform("one block", shape, plan.Rule{}),
		}).Draw(t, "plan"),
		MaxTokens: rapid.SampledFrom([]int{0, 0, 0, 1, 30, 90}).Draw(t, "max tokens"),
		Tenant:    rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "tenant"),
		Session:   rapid.SampledFrom([]string{"", "", "x", "y"}).Draw(t, "session"),
		Progress:  rapid.Bool().Draw(t, "progress"),
		Logits:    rapid.IntRange(0, 7).Draw(t, "logits") == 0,
	}
	if rapid.Bool().Draw(t, "sampled") {
		req.Sampling = sample.Params{Temperature: 1, RepetitionPenalty: 1.1, Seed: rapid.Uint64().Draw(t, "sampling seed")}
	}
	if rapid.Bool().Draw(t, "stops") {
		req.Stop = []int32{3, 14, 15, 92}
	}
	if storm {
		req.Plan, req.MaxTokens, req.Stop, req.Logits = plan.NewDense(shape), 0, nil, false
	}
	j := job{req: req}
	if rapid.IntRange(0, 3).Draw(t, "cancelled") == 0 {
		j.cancelAfter = rapid.IntRange(1, 12).Draw(t, "cancel after")
	}

	return expect(j, o)
}

// followUp continues a finished job's text, as the next turn of a conversation.
func followUp(t *rapid.T, j job, o engine.Options) job {
	next := j.req
	next.Prompt = append(append(slices.Clone(j.req.Prompt), j.want...), prompt(rapid.IntRange(1, 70).Draw(t, "turn"), 7)...)
	next.MaxTokens = 10
	return expect(job{req: next}, o)
}

// expect computes what must come of a job.
func expect(j job, o engine.Options) job {
	req := j.req
	p, total := len(req.Prompt), len(req.Prompt)+req.MaxTokens
	if req.MaxTokens == 0 {
		total = o.MaxContext
	}
	l := req.Plan.Bind(total)
	switch {
	case p >= o.MaxContext || total > o.MaxContext:
		j.refusal = &engine.ContextLengthError{}
		return j
	case req.MaxTokens == 0:
		// It ends where the context ends, or where the KV cache does.
		n := 0
		for n < o.MaxContext && l.Pages(n+1) <= o.Pages {
			n++
		}
		if n < p {
			j.refusal = engine.ErrNeverFits
			return j
		}
		total = min(total, n+1)
	case l.Pages(total-1) > o.Pages:
		j.refusal = engine.ErrNeverFits
		return j
	}
	j.want = backendtest.FakeAnswer(layers, kvHeads, vocab, l, req.Prompt, sample.New(req.Sampling, req.Prompt), total-p, req.Stop)
	return j
}

// run submits a job, says so and holds its stream against what must come.
func (j job) run(e *engine.Engine, submitted func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := e.Submit(ctx, j.req)
	submitted()
	if j.refusal != nil {
		var tooLong *engine.ContextLengthError
		if errors.As(j.refusal, &tooLong) && errors.As(err, &tooLong) || errors.Is(err, j.refusal) {
			return nil
		}
		return fmt.Errorf("Submit: %w, want %w", err, j.refusal)
	}
	if err != nil {
		return fmt.Errorf("Submit: %w", err)
	}
	var got outcome
	for n := 1; ; n++ {
		ev, ok := s.Next()
		if !ok {
			break
		}
		got.order = append(got.order, ev.Kind)
		got.last = ev
		switch ev.Kind {
		case engine.KindToken:
			got.tokens = append(got.tokens, ev.Choice.ID)
		case engine.KindProgress:
			got.processed = append(got.processed, ev.Processed)
			got.logits = append(got.logits, ev.Logits...)
		}
		if n == j.cancelAfter {
			cancel()
		}
	}
	if got.last.Kind != engine.KindFinished || !slices.IsSorted(got.order) || !slices.IsSorted(got.processed) {
		return fmt.Errorf("events %v with progress %v are out of order", got.order, got.processed)
	}
	if got.last.Reason == engine.ReasonCancelled && j.cancelAfter > 0 {
		if len(got.tokens) > len(j.want) || !slices.Equal(got.tokens, j.want[:len(got.tokens)]) {
			return fmt.Errorf("until it was cancelled it generated %v, alone it would have %v", got.tokens, j.want)
		}
		return nil
	}
	if !slices.Equal(got.tokens, j.want) {
		return fmt.Errorf("generated %v, alone it would have generated %v (%w)", got.tokens, j.want, got.last.Err)
	}
	reason := engine.ReasonLength
	if slices.Contains(j.req.Stop, j.want[len(j.want)-1]) {
		reason = engine.ReasonStop
	}
	if got.last.Reason != reason {
		return fmt.Errorf("ended with reason %d (%w), want %d", got.last.Reason, got.last.Err, reason)
	}
	if j.req.Logits && len(got.logits) != len(j.req.Prompt)-1 {
		return fmt.Errorf("logits of %d prompt tokens, the prompt has %d", len(got.logits), len(j.req.Prompt))
	}
	return nil
}

// TestInterleavedRequestsAnswerAsIfAlone runs many requests at once through small
// pools, small steps and few slots, some of them cancelled on the way. The fake
// device notices wrong pages; its answers change with whatever else goes wrong.
func TestInterleavedRequestsAnswerAsIfAlone(t *testing.T) {
	var hits, preemptions, cancelled, restored uint64
	rapid.Check(t, func(t *rapid.T) {
		o := engine.Options{
			Pages:                  rapid.SampledFrom([]int{4, 12, 24, 25, 28, 33, 48, 60}).Draw(t, "pages"),
			MaxSequences:           rapid.SampledFrom([]int{1, 2, 4, 6}).Draw(t, "sequences"),
			StepTokens:             rapid.SampledFrom([]int{6, 64, 100, 200}).Draw(t, "step tokens"),
			PrefillChunkWithDecode: rapid.SampledFrom([]int{1, 64, 150}).Draw(t, "chunk with decode"),
			MaxContext:             rapid.SampledFrom([]int{100, 200, 350}).Draw(t, "context"),
		}
		var jobs []job
		count := rapid.SampledFrom([]int{1, 8, 16, 24}).Draw(t, "jobs")
		storm := rapid.IntRange(0, 4).Draw(t, "storm") == 0
		if storm { // more than fits
			o.MaxSequences, o.MaxContext, count = max(o.MaxSequences, 4), 350, max(count, 8)
		}
		for range count {
			jobs = append(jobs, drawJob(t, o, storm))
		}
		if rapid.Bool().Draw(t, "on disk") {
			dir, err := os.MkdirTemp("", "spill")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(dir) }()
			o.OpenSpill = keptIn(dir, 0).OpenSpill
		}
		var submitted sync.WaitGroup
		restart := rapid.Bool().Draw(t, "restart")
		ahead := rapid.Bool().Draw(t, "ahead")
		start := func() *engine.Engine {
			fake := backendtest.NewFake(layers, kvHeads, vocab, backend.Options{MaxBatchTokens: o.StepTokens, MaxSequences: o.MaxSequences})
			fake.Before = func(*backend.Batch) error {
				if storm {
					submitted.Wait() // all at once, however the goroutines are scheduled
				}
				return nil
			}
			fake.After = func(_ *backend.Batch, _ *backend.Result, err error) {
				if err != nil {
					t.Errorf("Step: %v", err)
				}
			}
			var dev backend.Device = fake
			if ahead {
				dev = backendtest.NewFakeAhead(fake)
			}
			e, err := engine.New(dev, fakeModel(), o)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		e := start()
		for turn := range 2 {
			if turn == 1 && restart {
				if err := e.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				e = start()
			}
			errs := make([]error, len(jobs))
			var wg sync.WaitGroup
			submitted.Add(len(jobs))
			for i, j := range jobs {
				wg.Go(func() { errs[i] = j.run(e, submitted.Done) })
			}
			wg.Wait()
			for i, err := range errs {
				if err != nil {
					t.Errorf("turn %d, request %d: prompt of %d, max tokens %d, plan %s, span %s: %v",
						turn, i, len(jobs[i].req.Prompt), jobs[i].req.MaxTokens, jobs[i].req.Plan.Name, jobs[i].req.Plan.Span, err)
				}
			}
			if turn == 0 {
				for i := range jobs {
					if jobs[i].refusal == nil {
						jobs[i] = followUp(t, jobs[i], o)
					}
				}
			}
		}
		if s := e.Stats(); s.UsedPages != 0 || s.CommittedPages != 0 || s.Running != 0 || s.Waiting != 0 || s.QueuedTokens != 0 {
			t.Errorf("with nothing left to do: %+v", s)
		} else {
			preemptions += s.Preemptions
			hits += s.PrefixHits
			restored += s.Spill.Loaded
		}
		for _, j := range jobs {
			if j.cancelAfter > 0 {
				cancelled++
			}
		}
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Logf("%d prefix hits, %d preemptions, %d requests were to be cancelled, %d prefixes were read from disk", hits, preemptions, cancelled, restored)
	if !t.Failed() && (preemptions == 0 || cancelled == 0 || hits == 0 || restored == 0) {
		t.Errorf("the test did not reach what it is for")
	}
}

// TestSubmitCancelAndCloseRace lets everything that callers may do happen at
// once: every accepted stream must end, whatever the order.
func TestSubmitCancelAndCloseRace(t *testing.T) {
	for range 20 {
		fake := backendtest.NewFake(layers, kvHeads, vocab, backend.Options{})
		e, err := engine.New(fake, fakeModel(), engine.Options{Pages: 40, MaxSequences: 3, MaxQueuedRequests: 8})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for n := range 20 {
					ctx, cancel := context.WithCancel(context.Background())
					s, err := e.Submit(ctx, engine.Request{Prompt: prompt(1+n, uint64(i)), Plan: plan.NewDense(shape)})
					if err == nil {
						s.Next()
						cancel()
						drain(s)
					} else if !errors.Is(err, engine.ErrQueueFull) && !errors.Is(err, engine.ErrClosed) {
						t.Errorf("Submit: %v", err)
					}
					cancel()
					if s := e.Stats(); s.UsedPages > s.Pages || s.CommittedPages > s.Pages || s.UsedPages > s.CommittedPages {
						t.Errorf("Stats: %+v", s)
					}
				}
			})
		}
		for range 3 {
			wg.Go(func() {
				for e.Stats().Steps < 30 && e.Stats().Finished < 200 {
					goruntime.Gosched()
				}
				if err := e.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
		wg.Wait()
		if s := e.Stats(); s.UsedPages != 0 || s.Running != 0 || s.Waiting != 0 {
			t.Errorf("after Close: %+v", s)
		}
	}
}
