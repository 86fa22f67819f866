package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestCancelInPrefillFreesPagesBeforeTheNextChunk(t *testing.T) {
	inRig(t, engine.Options{StepTokens: 128, MaxSequences: 1}, func(r *rig) {
		ctx, cancel := context.WithCancel(r.Context())
		long := r.submitCtx(ctx, engine.Request{Prompt: prompt(2000, 1), MaxTokens: 10})
		next := r.submit(engine.Request{Prompt: prompt(5, 2), MaxTokens: 1})
		r.step(2)
		if used := r.Stats().UsedPages; used == 0 {
			t.Fatal("the prefill holds no pages")
		}
		cancel()
		synctest.Wait()
		r.step(1) // the chunk that ran when the context was cancelled
		r.wantPending(part{0, 5})
		if got := drain(long); got.last.Reason != engine.ReasonCancelled || got.last.Err != nil {
			t.Errorf("the cancelled request ended with %+v", got.last)
		}
		if s := r.Stats(); s.Running != 1 || s.UsedPages != layers*kvHeads {
			t.Errorf("the next request's first chunk should hold one block a head and nobody else a page: %+v", s)
		}
		r.step(1)
		if got := drain(next); len(got.tokens) != 1 {
			t.Errorf("the next request ended with %+v", got.last)
		}
		if r.stepsSeen() != 4 {
			t.Errorf("%d steps, want 3 of the cancelled prompt and 1 of the next", r.stepsSeen())
		}
	})
}

func TestCancelInTheQueueAndWhileDecoding(t *testing.T) {
	inRig(t, engine.Options{MaxSequences: 1}, func(r *rig) {
		runCtx, cancelRunning := context.WithCancel(r.Context())
		queueCtx, cancelQueued := context.WithCancel(r.Context())
		running := r.submitCtx(runCtx, engine.Request{Prompt: prompt(5, 1)})
		queued := r.submitCtx(queueCtx, engine.Request{Prompt: prompt(50, 2)})
		r.step(4)
		cancelQueued()
		r.step(1)
		if got := drain(queued); got.last.Reason != engine.ReasonCancelled || got.admitted != 0 {
			t.Errorf("the queued request ended with %+v", got)
		}
		cancelRunning()
		r.step(1)
		if got := drain(running); got.last.Reason != engine.ReasonCancelled || len(got.tokens) != 6 {
			t.Errorf("the decoding request ended with %+v", got)
		}
		if s := r.Stats(); s.UsedPages != 0 || s.Waiting != 0 || s.QueuedTokens != 0 {
			t.Errorf("after both were cancelled: %+v", s)
		}
	})
}

func TestDeviceErrorFailsOnlyTheSequencesOfItsStep(t *testing.T) {
	broken := errors.New("out of order")
	inRig(t, engine.Options{MaxSequences: 2}, func(r *rig) {
		a := r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 3})
		b := r.submit(engine.Request{Prompt: prompt(5, 2), MaxTokens: 3}) // not in the step that waits
		r.failStep(broken)
		if got := drain(a); got.last.Reason != engine.ReasonError || !errors.Is(got.last.Err, broken) {
			t.Errorf("the sequence of the failed step ended with %+v", got.last)
		}
		if err := r.Healthy(); err != nil {
			t.Errorf("after one failed step: %v", err)
		}
		r.step(3)
		if got := drain(b); got.last.Reason != engine.ReasonLength || len(got.tokens) != 3 {
			t.Errorf("the other ended with %+v", got.last)
		}
		if s := r.Stats(); s.FailedSteps != 1 || s.Steps != 4 || s.UsedPages != 0 {
			t.Errorf("Stats: %+v", s)
		}
	})
}

func TestPanicOfTheDeviceIsAnError(t *testing.T) {
	inRig(t, engine.Options{}, func(r *rig) {
		r.fake.Before = func(*backend.Batch) error { panic("index out of range") }
		s := r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 3})
		if got := drain(s); got.last.Reason != engine.ReasonError || got.last.Err == nil {
			t.Errorf("ended with %+v", got.last)
		}
		if s := r.Stats(); s.UsedPages != 0 || s.Running != 0 {
			t.Errorf("after the panic: %+v", s)
		}
	})
}

func TestFailuresInARowMakeTheEngineUnhealthyUntilAStepSucceeds(t *testing.T) {
	broken := errors.New("no such device")
	inRig(t, engine.Options{}, func(r *rig) {
		for i := range 3 {
			if err := r.Healthy(); err != nil {
				t.Fatalf("after %d failed steps: %v", i, err)
			}
			r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 3})
			r.failStep(broken)
		}
		if err := r.Healthy(); !errors.Is(err, broken) {
			t.Errorf("after three failed steps: %v", err)
		}
		time.Sleep(15 * time.Second) // or until it should be tried again
		if err := r.Healthy(); err != nil {
			t.Errorf("a while later: %v", err)
		}
		r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 3})
		r.failStep(broken)
		if err := r.Healthy(); !errors.Is(err, broken) {
			t.Errorf("after one more: %v", err)
		}
		r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 3})
		r.step(1)
		if err := r.Healthy(); err != nil {
			t.Errorf("after a step that succeeded: %v", err)
		}
	})
}

func TestLostDeviceEndsEverything(t *testing.T) {
	lost := fmt.Errorf("an illegal address: %w", backend.ErrDeviceLost)
	inRig(t, engine.Options{MaxSequences: 1}, func(r *rig) {
		a := r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 3})
		queued := r.submit(engine.Request{Prompt: prompt(5, 2), MaxTokens: 3})
		r.failStep(lost)
		for _, s := range []*engine.Stream{a, queued} {
			if got := drain(s); got.last.Reason != engine.ReasonError || !errors.Is(got.last.Err, lost) {
				t.Errorf("a request ended with %+v", got.last)
			}
		}
		select {
		case <-r.Lost():
		default:
			t.Error("the engine does not tell that the device is lost")
		}
		if _, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(5, 1), Plan: mixed(plan.SpanPosition)}); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("a new request: %v", err)
		}
		if err := r.Healthy(); !errors.Is(err, lost) {
			t.Errorf("Healthy: %v", err)
		}
	})
}

func TestDeviceThatForgetsRowsIsAnError(t *testing.T) {
	inRig(t, engine.Options{}, func(r *rig) {
		r.fake.After = func(_ *backend.Batch, res *backend.Result, _ error) { res.Choices = nil }
		s := r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 3})
		r.step(1)
		if got := drain(s); got.last.Reason != engine.ReasonError {
			t.Errorf("ended with %+v", got.last)
		}
	})
}

func TestDrainFinishesWhatWasAcceptedAndRefusesTheRest(t *testing.T) {
	inRig(t, engine.Options{MaxSequences: 1}, func(r *rig) {
		running := r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 2})
		queued := r.submit(engine.Request{Prompt: prompt(5, 2), MaxTokens: 2})
		early, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if err := r.Drain(early); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain with work left: %v", err)
		}
		if _, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(5, 1), Plan: plan.NewDense(shape)}); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("Submit while draining: %v", err)
		}
		r.step(4)
		if err := r.Drain(r.Context()); err != nil {
			t.Errorf("Drain: %v", err)
		}
		for name, s := range map[string]*engine.Stream{"running": running, "queued": queued} {
			if got := drain(s); got.last.Reason != engine.ReasonLength {
				t.Errorf("the %s request ended with %+v", name, got.last)
			}
		}
	})
}

func TestDrainOfAnIdleEngineReturnsAtOnce(t *testing.T) {
	inRig(t, engine.Options{}, func(r *rig) {
		if err := r.Drain(r.Context()); err != nil {
			t.Errorf("Drain: %v", err)
		}
	})
}

func TestCloseEndsEverythingWithErrClosed(t *testing.T) {
	var streams []*engine.Stream
	inRig(t, engine.Options{MaxSequences: 1}, func(r *rig) {
		for range 3 {
			streams = append(streams, r.submit(engine.Request{Prompt: prompt(5, 1)}))
		}
		go func() { // Close waits for the step that runs
			time.Sleep(time.Second)
			r.allow <- nil
		}()
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for _, s := range streams {
			if got := drain(s); got.last.Reason != engine.ReasonError || !errors.Is(got.last.Err, engine.ErrClosed) {
				t.Errorf("ended with %+v", got.last)
			}
		}
	})
}

func TestIdleEngineSleeps(t *testing.T) {
	inRig(t, engine.Options{}, func(r *rig) {
		synctest.Wait() // returns only when the engine waits for something
		steps := r.stepsSeen()
		time.Sleep(time.Hour)
		if r.stepsSeen() != steps {
			t.Error("an idle engine ran steps")
		}
	})
}

// watched counts the functions registered with context.AfterFunc. Its Value
// hides the context inside, with which they would be registered otherwise.
type watched struct {
	context.Context
	watchers int
}

func (w *watched) Value(any) any { return nil }

func (w *watched) AfterFunc(func()) func() bool {
	w.watchers++
	return func() bool { w.watchers--; return true }
}

func TestFinishedRequestLeavesNothingOnItsContext(t *testing.T) {
	inRig(t, engine.Options{MaxQueuedRequests: 1}, func(r *rig) {
		ctx := &watched{Context: r.Context()}
		r.submitCtx(ctx, engine.Request{Prompt: prompt(10, 1), MaxTokens: 1})
		r.submitCtx(ctx, engine.Request{Prompt: prompt(10, 1), MaxTokens: 1})
		if _, err := r.Submit(ctx, engine.Request{Prompt: prompt(10, 1), Plan: plan.NewDense(shape)}); !errors.Is(err, engine.ErrQueueFull) {
			t.Fatalf("Submit: %v, want ErrQueueFull", err)
		}
		if ctx.watchers != 2 {
			t.Errorf("%d watchers of two accepted requests", ctx.watchers)
		}
		r.step(2)
		if ctx.watchers != 0 {
			t.Errorf("%d watchers left", ctx.watchers)
		}
	})
}
