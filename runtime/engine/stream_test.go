package engine_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestWithoutMaxTokensASequenceEndsWithTheContext(t *testing.T) {
	inRig(t, engine.Options{MaxContext: 50}, func(r *rig) {
		s := r.submit(engine.Request{Prompt: prompt(40, 1)})
		r.step(10)
		if got := drain(s); got.last.Reason != engine.ReasonLength || len(got.tokens) != 10 {
			t.Errorf("%d tokens, ended with %+v", len(got.tokens), got.last)
		}
	})
}

func TestLogitsOfPromptTokensComeOnceAndAreBoundedByTheReader(t *testing.T) {
	inRig(t, engine.Options{}, func(r *rig) {
		s := r.submit(engine.Request{Prompt: prompt(200, 1), MaxTokens: 1, Logits: true})
		r.wantPending(part{0, 64})
		r.step(1)
		if r.stepsSeen() != 1 {
			t.Fatal("a second chunk is computed while the logits of the first were not read")
		}
		got := outcome{}
		for done := 1; ; {
			e, ok := s.Next()
			if !ok {
				break
			}
			got.logits = append(got.logits, e.Logits...)
			if synctest.Wait(); r.stepsSeen() > done { // reading let the next chunk begin
				r.step(1)
				done++
			}
		}
		if len(got.logits) != 199 {
			t.Errorf("logits of %d tokens, want those of all prompt tokens but the last", len(got.logits))
		}
		for i, l := range got.logits {
			if len(l) != vocab {
				t.Errorf("token %d has %d logits", i, len(l))
			}
		}
	})
}

func TestProgressThatNobodyReadsIsMerged(t *testing.T) {
	inRig(t, engine.Options{StepTokens: 64}, func(r *rig) {
		s := r.submit(engine.Request{Prompt: prompt(640, 1), MaxTokens: 1, Progress: true})
		r.step(3)
		if e, _ := s.Next(); e.Kind != engine.KindAdmitted {
			t.Errorf("first event: %+v", e)
		}
		if e, _ := s.Next(); e.Kind != engine.KindProgress || e.Processed != 192 {
			t.Errorf("after three chunks: %+v", e)
		}
		r.step(7)
		if got := drain(s); !slices.Equal(got.processed, []int{640}) || len(got.tokens) != 1 {
			t.Errorf("the rest: %+v", got)
		}
	})
}

func TestStoppingTokenIsDeliveredAndEndsTheSequence(t *testing.T) {
	req := engine.Request{Prompt: prompt(20, 3), MaxTokens: 200, Plan: plan.NewDense(shape)}
	stop := answer(req, 0, 30)[29]
	req.Stop = []int32{-1, stop}
	want := answer(req, 0, 200)
	inRig(t, engine.Options{}, func(r *rig) {
		s := r.submit(req)
		for r.Stats().Finished == 0 {
			r.step(1)
		}
		var stopped []bool
		for {
			e, ok := s.Next()
			if !ok {
				break
			}
			if e.Kind == engine.KindToken {
				stopped = append(stopped, e.Stopped)
			}
			if e.Kind == engine.KindFinished && e.Reason != engine.ReasonStop {
				t.Errorf("ended with %+v", e)
			}
		}
		if len(stopped) != len(want) || slices.Index(stopped, true) != len(want)-1 {
			t.Errorf("stopped flags %v, want %d tokens and the last one flagged", stopped, len(want))
		}
	})
}

func TestSpanByLengthIsBoundToPromptAndMaxTokens(t *testing.T) {
	p := mixed(plan.SpanLength)
	req := engine.Request{Prompt: prompt(900, 1), MaxTokens: 200, Plan: p}
	inRig(t, engine.Options{}, func(r *rig) {
		s := r.submit(req)
		for r.Stats().Finished == 0 {
			r.step(1)
		}
		if got := drain(s); !slices.Equal(got.tokens, answer(req, 1100, 200)) {
			t.Errorf("generated %v", got.tokens)
		}
	})
}
