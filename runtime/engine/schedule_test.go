package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestDecodeGoesFirstAndPrefillTakesTheRest(t *testing.T) {
	o := engine.Options{StepTokens: 256, PrefillChunkWithDecode: 128}
	inRig(t, o, func(r *rig) {
		r.takes(func(tokens int) time.Duration { return time.Second }) // whatever it does
		short := r.submit(engine.Request{Prompt: prompt(10, 1), MaxTokens: 11})
		r.wantPending(part{0, 10})
		long := r.submit(engine.Request{Prompt: prompt(900, 2), MaxTokens: 1})
		r.step(1)
		r.wantPending(part{10, 1}) // how long is it without a prompt?
		r.step(1)
		r.wantPending(part{11, 1}, part{0, 7})
		r.step(1)
		r.wantPending(part{12, 1}, part{7, 15}) // it costs nothing: twice as much, in pairs of rows
		r.step(4)
		r.wantPending(part{16, 1}, part{243, 13}) // to where a prefix is kept
		r.step(1)
		r.wantPending(part{17, 1}, part{256, 127}) // never more
		r.step(3)
		r.wantPending(part{512, 256}) // alone again
		r.step(1)
		r.wantPending(part{768, 132})
		if got := drain(short); got.last.Reason != engine.ReasonLength || len(got.tokens) != 11 {
			t.Errorf("the short request ended with %+v", got.last)
		}
		r.step(1)
		if got := drain(long); got.last.Reason != engine.ReasonLength || len(got.tokens) != 1 {
			t.Errorf("the long request ended with %+v", got.last)
		}
	})
}

// TestLongPromptHardlyDelaysOtherTokens runs a device that, like a CPU, takes 8 ms
// to read its weights and 2 ms a row to compute, whichever is longer.
func TestLongPromptHardlyDelaysOtherTokens(t *testing.T) {
	const prompted, alone = 7000, 8 * time.Millisecond
	cost := func(tokens int) time.Duration { return max(alone, time.Duration(tokens)*2*time.Millisecond) }
	for _, others := range []int{1, 3, 20} {
		rec := &recorder{}
		inRig(t, engine.Options{Pages: 10000, MaxContext: 8192, Observer: rec, MaxSequences: 32}, func(r *rig) {
			r.takes(cost)
			r.allowAll()
			for i := range others {
				r.submit(engine.Request{Prompt: prompt(5, uint64(i)), Plan: plan.Uniform("one block", shape, plan.Rule{})})
			}
			time.Sleep(time.Second)
			before := len(rec.gaps())
			started := time.Now()
			drain(r.submit(engine.Request{Prompt: prompt(prompted, 99), MaxTokens: 1, Plan: plan.Uniform("one block", shape, plan.Rule{})}))
			took := time.Since(started)
			gaps := slices.Sorted(slices.Values(rec.gaps()[before:]))
			normal := cost(others)
			if p95 := gaps[len(gaps)*95/100]; p95 > normal*5/2 {
				t.Errorf("%d others: the 95th percentile of the time between tokens is %v beside a long prompt, alone %v", others, p95, normal)
			}
			// The rows of the others are computed too, and a decode-only step now and then.
			rows := prompted + len(gaps)
			if most := time.Duration(rows) * 2 * time.Millisecond * 115 / 100; took > most {
				t.Errorf("%d others: the prompt took %v, want at most %v", others, took, most)
			}
		})
	}
}

func TestShortPromptTakesTurnsWithALongOneBesideADecode(t *testing.T) {
	inRig(t, engine.Options{Pages: 10000, MaxContext: 8192}, func(r *rig) {
		r.takes(func(tokens int) time.Duration { return time.Duration(tokens) * time.Millisecond })
		r.allowAll()
		r.submit(engine.Request{Prompt: prompt(5, 1)})
		time.Sleep(100 * time.Millisecond)
		long := r.submit(engine.Request{Prompt: prompt(3000, 2), MaxTokens: 1})
		time.Sleep(100 * time.Millisecond)
		short := drain(r.submit(engine.Request{Prompt: prompt(40, 3), MaxTokens: 1}))
		// About 40 steps for its 40 tokens, if it had every other.
		if got := short.last.Timings.Prefill; got > 400*time.Millisecond {
			t.Errorf("the short prompt took %v", got)
		}
		drain(long)
	})
}

func TestShortPromptSharesTheStepOfALongOne(t *testing.T) {
	inRig(t, engine.Options{StepTokens: 256}, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(3000, 1), MaxTokens: 1})
		short := r.submit(engine.Request{Prompt: prompt(40, 2), MaxTokens: 1})
		r.wantPending(part{0, 256})
		r.step(1)
		r.wantPending(part{256, 192}, part{0, 40})
		r.step(1)
		if got := drain(short); len(got.tokens) != 1 {
			t.Errorf("the short prompt did not end with the step it took part in: %+v", got.last)
		}
	})
}

func TestOldestPromptKeepsHalfTheStep(t *testing.T) {
	inRig(t, engine.Options{StepTokens: 256}, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(3000, 1), MaxTokens: 1})
		for i := range 5 {
			r.submit(engine.Request{Prompt: prompt(100, uint64(i)), MaxTokens: 1})
		}
		r.step(1)
		r.wantPending(part{256, 128}, part{0, 100})
		r.step(1)
		r.wantPending(part{384, 128}, part{0, 100})
	})
}

func TestChunksEndAtBlocks(t *testing.T) {
	inRig(t, engine.Options{StepTokens: 200}, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(500, 1), MaxTokens: 1})
		r.wantPending(part{0, 192})
		r.step(1)
		r.wantPending(part{192, 192})
		r.step(1)
		r.wantPending(part{384, 116})
	})
}

func TestGrowingSequenceIsPreemptedYoungestFirstAndResumesWithTheSameAnswer(t *testing.T) {
	dense := plan.NewDense(shape)
	perBlock := layers * kvHeads
	rec := &recorder{}
	// Room for three sequences of two blocks and, besides, one more block.
	inRig(t, engine.Options{Pages: 7 * perBlock, MaxContext: 300, Observer: rec}, func(r *rig) {
		var reqs []engine.Request
		var streams []*engine.Stream
		for i := range 3 {
			req := engine.Request{Prompt: prompt(60+i, uint64(i)), Plan: dense, Progress: true}
			reqs = append(reqs, req)
			streams = append(streams, r.submit(req))
		}
		for r.Stats().Preemptions == 0 {
			r.step(1)
		}
		if got := len(r.pending()); got != 2 {
			t.Errorf("%d sequences in the step after the preemption, want the two oldest", got)
		}
		for r.Stats().Finished < 3 {
			r.step(1)
		}
		for i, s := range streams {
			got := drain(s)
			if want := answer(reqs[i], 0, 240-i); !slices.Equal(got.tokens, want) || got.last.Reason != engine.ReasonLength {
				t.Errorf("sequence %d generated %v, alone it would have generated %v", i, got.tokens, want)
			}
			if got.admitted != 1 || !slices.Equal(got.processed, []int{60 + i}) {
				t.Errorf("sequence %d was admitted %d times, with progress %v: a preemption shows", i, got.admitted, got.processed)
			}
		}
		for i, f := range rec.finish {
			if f.PromptTokens != 60+i || i == 0 && f.Preemptions != 0 || i == 2 && f.Preemptions == 0 {
				t.Errorf("as number %d ended %+v: want the oldest first and never preempted", i, f)
			}
		}
	})
}

func TestSequenceWithMaxTokensIsNeverPreempted(t *testing.T) {
	dense := plan.NewDense(shape)
	perBlock := layers * kvHeads
	inRig(t, engine.Options{Pages: 7 * perBlock, MaxContext: 300}, func(r *rig) {
		growing := r.submit(engine.Request{Prompt: prompt(60, 1), Plan: dense})
		reserved := r.submit(engine.Request{Prompt: prompt(60, 2), Plan: dense, MaxTokens: 190}) // 4 blocks
		for r.Stats().Finished < 1 {
			r.step(1)
		}
		if got := drain(reserved); len(got.tokens) != 190 || got.last.Reason != engine.ReasonLength {
			t.Errorf("the sequence that reserved ended with %+v after %d tokens", got.last, len(got.tokens))
		}
		if r.Stats().Preemptions != 1 {
			t.Errorf("%d preemptions, want 1: the older, growing sequence gave way", r.Stats().Preemptions)
		}
		for r.Stats().Finished < 2 {
			r.step(1)
		}
		if got := drain(growing); len(got.tokens) != 240 {
			t.Errorf("the growing sequence ended with %+v after %d tokens", got.last, len(got.tokens))
		}
	})
}
