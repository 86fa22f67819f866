package engine_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moaserve/moaserve/runtime/engine"
)

// recorder is an Observer that keeps everything. The engine's goroutine writes;
// tests read when the engine waits.
type recorder struct {
	steps  []engine.StepReport
	first  []time.Duration
	next   []time.Duration
	finish []engine.RequestReport

	mu sync.Mutex // for next, which a test may read while the engine runs
}

var _ engine.Observer = (*recorder)(nil)

func (r *recorder) ObserveStep(s engine.StepReport)   { r.steps = append(r.steps, s) }
func (r *recorder) ObserveFirstToken(d time.Duration) { r.first = append(r.first, d) }

func (r *recorder) ObserveNextToken(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = append(r.next, d)
}

// gaps returns the times between tokens so far.
func (r *recorder) gaps() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.next)
}

func (r *recorder) ObserveFinish(f engine.RequestReport) { r.finish = append(r.finish, f) }

func TestObserverSeesEveryTokenAndTheTimeItTook(t *testing.T) {
	rec := &recorder{}
	o := engine.Options{MaxSequences: 1, StepTokens: 64, Observer: rec}
	inRig(t, o, func(r *rig) {
		a := r.submit(engine.Request{Prompt: prompt(100, 1), MaxTokens: 3, Tenant: "t"})
		b := r.submit(engine.Request{Prompt: prompt(10, 2), MaxTokens: 2})
		for range 6 { // two chunks and two tokens of a; a chunk and a token of b
			time.Sleep(time.Second)
			r.step(1)
		}
		drain(a)
		got := drain(b).last.Timings
		if want := (engine.Timings{Queue: 4 * time.Second, Prefill: time.Second, Decode: time.Second}); got != want {
			t.Errorf("timings of the second request %+v, want %+v", got, want)
		}
	})
	tokens, prefill, decode := 0, 0, 0
	for _, s := range rec.steps {
		prefill += s.PrefillTokens
		decode += s.DecodeTokens
		if s.Duration != time.Second || s.Err != nil {
			t.Errorf("step %+v", s)
		}
	}
	for _, f := range rec.finish {
		tokens += f.GeneratedTokens
	}
	if len(rec.first) != 2 || len(rec.next) != tokens-2 || prefill != 110 || decode != tokens-2 {
		t.Errorf("%d first and %d next tokens, %d prefilled, %d decoded", len(rec.first), len(rec.next), prefill, decode)
	}
	if rec.first[0] != 2*time.Second || rec.first[1] != 5*time.Second || rec.next[0] != time.Second {
		t.Errorf("first tokens after %v, next after %v", rec.first, rec.next)
	}
	if f := rec.finish[0]; f.Tenant != "t" || f.PromptTokens != 100 || f.MaxTokens != 3 || f.Reason != engine.ReasonLength {
		t.Errorf("report %+v", f)
	}
}

func TestObserverSeesRequestsThatWereNeverAdmitted(t *testing.T) {
	rec := &recorder{}
	inRig(t, engine.Options{MaxSequences: 1, Observer: rec}, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(10, 1), MaxTokens: 3})
		ctx, cancel := context.WithCancel(r.Context())
		r.submitCtx(ctx, engine.Request{Prompt: prompt(10, 2), MaxTokens: 2})
		time.Sleep(time.Second)
		cancel()
		r.step(1)
		if len(rec.finish) != 1 || rec.finish[0].Reason != engine.ReasonCancelled || rec.finish[0].Timings.Queue != time.Second {
			t.Errorf("reports %+v", rec.finish)
		}
	})
}
