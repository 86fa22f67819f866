package engine_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
)

// pipelined is a device that works ahead and writes down what it is asked.
type pipelined struct {
	*backendtest.FakeAhead
	mu     sync.Mutex
	calls  []rune              // 'B' for Begin, 'E' for End
	before func(call int)      // called before each End; may be nil
	fail   func(end int) error // the error of an End; may be nil
	ends   int
	// chunkUnderWay counts the steps that began while a chunk of a prompt was under way.
	latest        *backend.Batch
	chunkUnderWay int
	began         func(b *backend.Batch) // called at each Begin; may be nil
}

var _ backend.Ahead = (*pipelined)(nil)

func (w *pipelined) Begin(b *backend.Batch) (bool, error) {
	w.mu.Lock()
	w.calls = append(w.calls, 'B')
	if under := len(w.calls) - 2*w.ends; under == 2 && slices.ContainsFunc(w.latest.Seqs, func(s backend.Seq) bool { return s.Len > 1 }) {
		w.chunkUnderWay++
	}
	w.latest = b
	w.mu.Unlock()
	if w.began != nil {
		w.began(b)
	}
	return w.FakeAhead.Begin(b)
}

func (w *pipelined) End() (*backend.Result, error) {
	w.mu.Lock()
	w.calls = append(w.calls, 'E')
	w.ends++
	end := w.ends
	w.mu.Unlock()
	if w.before != nil {
		w.before(end)
	}
	r, err := w.FakeAhead.End()
	if err == nil && w.fail != nil {
		err = w.fail(end)
	}
	return r, err
}

// newAhead starts an engine on such a device. It does nothing before the first
// request is submitted.
func newAhead(t *testing.T, o engine.Options) (*engine.Engine, *pipelined) {
	t.Helper()
	o.MaxSequences = 4
	fake := backendtest.NewFake(layers, kvHeads, vocab, backend.Options{MaxBatchTokens: 512, MaxSequences: o.MaxSequences})
	w := &pipelined{FakeAhead: backendtest.NewFakeAhead(fake)}
	e, err := engine.New(w, fakeModel(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e, w
}

// submitAll submits requests, one after the other.
func submitAll(t *testing.T, e *engine.Engine, requests []engine.Request) []*engine.Stream {
	t.Helper()
	var streams []*engine.Stream
	for _, r := range requests {
		s, err := e.Submit(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	return streams
}

func TestNextDecodeBeginsBeforeTheAnswerOfTheOneBefore(t *testing.T) {
	e, w := newAhead(t, engine.Options{Pages: 1000})
	ask(t, e, engine.Request{Prompt: prompt(100, 1)})
	// One step of prefill; the 7 tokens after it each begin while the one before is
	// under way, and nothing begins behind the last.
	if got, want := string(w.calls), "BE"+"BBEBEBEBEBEBEE"; got != want {
		t.Errorf("the device was asked %s, want %s", got, want)
	}
}

func TestSamplingIsTheSameAhead(t *testing.T) {
	e, _ := newAhead(t, engine.Options{Pages: 1000})
	ask(t, e, engine.Request{Prompt: prompt(100, 1), Sampling: sample.Params{Temperature: 1, Seed: 5, RepetitionPenalty: 1.2}})
}

func TestStopTokenEndsAStreamWhoseNextStepIsUnderWay(t *testing.T) {
	e, _ := newAhead(t, engine.Options{Pages: 1000})
	req := engine.Request{Prompt: prompt(126, 3), Plan: mixed(plan.SpanPosition)}
	long := answer(req, 200, 8)
	at := slices.IndexFunc(long, func(id int32) bool { return slices.Index(long, id) >= 2 })
	req.Stop = long[at : at+1]
	got, _ := ask(t, e, req)
	if !slices.Equal(got, long[:at+1]) {
		t.Errorf("generated %v, want %v", got, long[:at+1])
	}
	if s := e.Stats(); s.UsedPages != 0 || s.Running != 0 {
		t.Errorf("after the end: %+v", s)
	}
	// What was kept of it is right: its next turn says so.
	ask(t, e, engine.Request{Prompt: slices.Concat(req.Prompt, got, prompt(40, 9))})
}

func TestCancelWhileAStepIsUnderWayFreesThePages(t *testing.T) {
	e, w := newAhead(t, engine.Options{Pages: 1000})
	ctx, cancel := context.WithCancel(t.Context())
	w.before = func(end int) {
		if end == 5 {
			cancel()
		}
	}
	s, err := e.Submit(ctx, engine.Request{Prompt: prompt(60, 1), Plan: mixed(plan.SpanPosition)})
	if err != nil {
		t.Fatal(err)
	}
	got := drain(s)
	if got.last.Reason != engine.ReasonCancelled || len(got.tokens) != 5 {
		t.Errorf("it ended with %+v after %d tokens, want 5: those of the steps that had ended", got.last, len(got.tokens))
	}
	if s := e.Stats(); s.UsedPages != 0 || s.Running != 0 {
		t.Errorf("after the end: %+v", s)
	}
	ask(t, e, engine.Request{Prompt: prompt(60, 1)})
}

func TestFailedStepLeavesNoPrefixOfAStreamCancelledMeanwhile(t *testing.T) {
	broken := errors.New("out of order")
	e, w := newAhead(t, engine.Options{Pages: 1000})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The fifth step computes the last token of block 0 (position 63).
	w.before = func(end int) {
		if end == 4 {
			cancel() // seen while the fifth is under way
		}
	}
	w.fail = func(end int) error {
		if end == 5 {
			return broken
		}
		return nil
	}
	s, err := e.Submit(ctx, engine.Request{Prompt: prompt(60, 1), Plan: plan.NewDense(shape)})
	if err != nil {
		t.Fatal(err)
	}
	if got := drain(s); got.last.Reason != engine.ReasonCancelled {
		t.Errorf("it ended with %+v", got.last)
	}
	for e.Stats().FailedSteps == 0 { // the step's answer comes right after
		if _, cached := ask(t, e, engine.Request{Prompt: prompt(10, 2)}); cached != 0 {
			t.Errorf("%d tokens cached", cached)
		}
	}
	if n := e.Stats().FailedSteps; n != 1 {
		t.Fatalf("%d steps failed, want one", n)
	}
	text := slices.Concat(prompt(60, 1), answer(engine.Request{Prompt: prompt(60, 1), Plan: plan.NewDense(shape)}, 70, 4), prompt(20, 3))
	if _, cached := ask(t, e, engine.Request{Prompt: text, Plan: plan.NewDense(shape)}); cached != 0 {
		t.Errorf("%d tokens were kept of a step that failed", cached)
	}
}

func TestPiecesOfAPromptGoAheadBesideDecodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in whose time all steps take the same
		e, w := newAhead(t, engine.Options{Pages: 4000, PrefillChunkWithDecode: 24})
		w.Before = func(*backend.Batch) error {
			time.Sleep(time.Millisecond)
			return nil
		}
		requests := []engine.Request{
			{Prompt: prompt(10, 1), Plan: mixed(plan.SpanPosition), MaxTokens: 400},
			{Prompt: prompt(1500, 2), Plan: mixed(plan.SpanPosition), MaxTokens: 8, Progress: true},
		}
		streams := submitAll(t, e, requests)
		for i, r := range requests {
			got := drain(streams[i])
			if want := answer(r, len(r.Prompt)+r.MaxTokens, r.MaxTokens); !slices.Equal(got.tokens, want) {
				t.Errorf("a prompt of %d tokens: generated %v, want %v", len(r.Prompt), got.tokens, want)
			}
			if !slices.IsSorted(got.processed) {
				t.Errorf("progress %v", got.processed)
			}
		}
		if w.chunkUnderWay < 40 {
			t.Errorf("%d steps began while a piece of the prompt was under way, want most of some sixty", w.chunkUnderWay)
		}
	})
}

// A request that comes when a token is delivered, as a reader's next question does, is
// part of the step that begins next, which has not begun by then. Yet the device always
// has a step to compute.
func TestNewPromptIsPartOfTheNextStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const step = 10 * time.Millisecond
		e, w := newAhead(t, engine.Options{Pages: 1000})
		var free time.Time  // when the device has computed what it was given
		var due []time.Time // the ends of the steps under way
		idle, begun, chunk := time.Duration(0), 0, 0
		w.began = func(b *backend.Batch) {
			begun++
			if chunk == 0 && slices.ContainsFunc(b.Seqs, func(s backend.Seq) bool { return s.Len > 1 }) {
				chunk = begun
			}
			now := time.Now()
			if now.After(free) {
				idle += now.Sub(free)
				free = now
			}
			free = free.Add(step)
			due = append(due, free)
		}
		w.before = func(int) {
			time.Sleep(time.Until(due[0]))
			due = due[1:]
		}
		a, err := e.Submit(t.Context(), engine.Request{Prompt: prompt(60, 1), Plan: mixed(plan.SpanPosition), MaxTokens: 60})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, ok := a.Next(); !ok {
				t.Fatal("the stream ended")
			}
		}
		synctest.Wait() // the token was delivered, and the engine did what it does then
		before := begun
		idle, chunk = 0, 0
		if len(due) != 1 {
			t.Errorf("%d steps are under way, want 1", len(due))
		}
		b, err := e.Submit(t.Context(), engine.Request{Prompt: prompt(60, 2), Plan: mixed(plan.SpanPosition), MaxTokens: 1})
		if err != nil {
			t.Fatal(err)
		}
		drain(b)
		drain(a)
		if chunk != before+1 {
			t.Errorf("the prompt was part of step %d, want %d", chunk, before+1)
		}
		if idle > 0 {
			t.Errorf("the device had nothing to do for %v", idle)
		}
	})
}

func TestFailedStepIsTakenBackFromWhoContinuedIt(t *testing.T) {
	broken := errors.New("out of order")
	e, w := newAhead(t, engine.Options{Pages: 1000})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := engine.Request{Prompt: prompt(60, 1), Plan: plan.NewDense(shape)}
	// It continues block 0, whose last token the fifth step should have computed.
	second := engine.Request{Prompt: slices.Concat(first.Prompt, answer(first, 70, 4), prompt(20, 3)), Plan: plan.NewDense(shape), MaxTokens: 8}
	var other *engine.Stream
	w.before = func(end int) {
		if end == 4 {
			cancel() // seen while the fifth is under way, as the second request is
			var err error
			if other, err = e.Submit(t.Context(), second); err != nil {
				t.Error(err)
			}
		}
	}
	steps := 0
	w.Before = func(*backend.Batch) error {
		if steps++; steps == 5 {
			return broken
		}
		return nil
	}
	s, err := e.Submit(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	drain(s)
	got := drain(other)
	// The fake refuses the second request's own first step, too, which read what was never
	// written. Nobody waits for that one any more.
	if n := e.Stats().FailedSteps; n != 2 {
		t.Errorf("%d steps failed, want two", n)
	}
	if want := answer(second, len(second.Prompt)+8, 8); got.last.Err != nil || !slices.Equal(got.tokens, want) {
		t.Errorf("generated %v, %v, want %v", got.tokens, got.last.Err, want)
	}
}

// growsToItsEnd returns a request without MaxTokens that ends with its answer's token at,
// which is new there.
func growsToItsEnd(n, at int, seed uint64) engine.Request {
	for ; ; seed++ {
		r := engine.Request{Prompt: prompt(n, seed), Plan: plan.NewDense(shape)}
		long := answer(r, 257, at+1)
		if slices.Index(long, long[at]) == at && !slices.Contains(r.Prompt, long[at]) {
			r.Stop = []int32{long[at]}
			return r
		}
	}
}

func TestStreamsThatEndWhileAStepIsBuiltMakeRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, w := newAhead(t, engine.Options{Pages: 16, NoPrefixCache: true})
		w.Before = func(*backend.Batch) error {
			time.Sleep(time.Millisecond)
			return nil
		}
		// Two want pages for position 128 while their last token is under way; the third
		// waits for pages.
		requests := []engine.Request{growsToItsEnd(60, 68, 1), growsToItsEnd(60, 68, 1000), {Prompt: prompt(60, 5), Plan: plan.NewDense(shape), MaxTokens: 4}}
		streams := submitAll(t, e, requests)
		for i, s := range streams {
			done := make(chan outcome, 1)
			go func() { done <- drain(s) }()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatalf("request %d hangs: %+v", i, e.Stats())
			}
		}
	})
}
