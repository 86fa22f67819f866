package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestFullQueueRefusesWithFigures(t *testing.T) {
	o := engine.Options{MaxSequences: 1, MaxQueuedRequests: 2, MaxQueuedTokens: 1000, StepTokens: 64}
	inRig(t, o, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(640, 1), MaxTokens: 1})
		for range 4 { // 64 tokens in two seconds each
			time.Sleep(2 * time.Second)
			r.step(1)
		}
		refused := func(n int) *engine.QueueFullError {
			t.Helper()
			_, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(n, 2), Plan: plan.NewDense(shape)})
			var full *engine.QueueFullError
			if !errors.Is(err, engine.ErrQueueFull) || !errors.As(err, &full) {
				t.Fatalf("Submit: %v, want ErrQueueFull", err)
			}
			return full
		}
		r.submit(engine.Request{Prompt: prompt(640, 2), MaxTokens: 1})
		full := refused(361)
		if full.Requests != 1 || full.MaxRequests != 2 || full.Tokens != 640 || full.MaxTokens != 1000 {
			t.Errorf("refused for its tokens: %+v", full)
		}
		if full.Wait != 20*time.Second { // 640 tokens at 32 a second
			t.Errorf("estimated wait %v, want 20s", full.Wait)
		}
		r.submit(engine.Request{Prompt: prompt(360, 2), MaxTokens: 1})
		if full := refused(1); full.Requests != 2 || full.Tokens != 1000 {
			t.Errorf("refused for the number of requests: %+v", full)
		}
		if s := r.Stats(); s.Waiting != 2 || s.QueuedTokens != 1000 || s.Refused != 2 {
			t.Errorf("Stats: %+v", s)
		}
	})
}

func TestOnePromptMayWaitHoweverLong(t *testing.T) {
	inRig(t, engine.Options{MaxQueuedTokens: 10}, func(r *rig) {
		if got := r.submit(engine.Request{Prompt: prompt(500, 1), MaxTokens: 1}); got == nil {
			t.Error("refused")
		}
	})
}

func TestTenantsTakeTurns(t *testing.T) {
	inRig(t, engine.Options{MaxSequences: 1}, func(r *rig) {
		var mu sync.Mutex
		var got []string
		add := func(tenant string, n int) {
			for i := range n {
				s := r.submit(engine.Request{Prompt: prompt(5, 1), MaxTokens: 1, Tenant: tenant})
				go func() {
					if e, ok := s.Next(); ok && e.Kind == engine.KindAdmitted {
						mu.Lock()
						defer mu.Unlock()
						got = append(got, fmt.Sprint(tenant, i))
					}
				}()
			}
		}
		add("a", 4)
		add("b", 2)
		add("c", 1)
		r.step(7)
		mu.Lock()
		defer mu.Unlock()
		want := []string{"a0", "a1", "b0", "c0", "a2", "b1", "a3"}
		if !slices.Equal(got, want) {
			t.Errorf("admitted in the order %v, want %v", got, want)
		}
	})
}

func TestRequestsThatNeverFitAreRefusedWithFigures(t *testing.T) {
	dense := plan.NewDense(shape)
	need := dense.Bind(0).Pages(640)
	inRig(t, engine.Options{Pages: need}, func(r *rig) {
		// The last token is never fed back, so 641 tokens fit.
		if s, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(600, 1), MaxTokens: 41, Plan: dense}); err != nil || s == nil {
			t.Errorf("a request that needs every page: %v", err)
		}
		_, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(600, 1), MaxTokens: 42, Plan: dense})
		var never *engine.NeverFitsError
		if !errors.Is(err, engine.ErrNeverFits) || !errors.As(err, &never) || never.Pages != need || never.Need != need+dense.Bind(0).Heads() {
			t.Errorf("Submit: %v", err)
		}
		if _, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(641, 1), Plan: dense}); !errors.Is(err, engine.ErrNeverFits) {
			t.Errorf("a prompt without max tokens: %v", err)
		}
		if _, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(641, 1), MaxTokens: 10, Plan: plan.Uniform("one block", shape, plan.Rule{})}); err != nil {
			t.Errorf("the same prompt under a sparse plan: %v", err)
		}
	})
}

func TestContextOverflowIsRefusedWithFigures(t *testing.T) {
	inRig(t, engine.Options{MaxContext: 100}, func(r *rig) {
		for _, c := range []struct {
			prompt, max int
			fits        bool
		}{{60, 40, true}, {60, 41, false}, {99, 0, true}, {100, 0, false}, {101, 1, false}, {1, int(^uint(0) >> 1), false}} {
			_, err := r.Submit(r.Context(), engine.Request{Prompt: prompt(c.prompt, 1), MaxTokens: c.max, Plan: plan.NewDense(shape)})
			var tooLong *engine.ContextLengthError
			switch {
			case c.fits && err != nil:
				t.Errorf("%d tokens and %d: %v", c.prompt, c.max, err)
			case !c.fits && (!errors.As(err, &tooLong) || *tooLong != engine.ContextLengthError{PromptTokens: c.prompt, MaxTokens: c.max, Context: 100}):
				t.Errorf("%d tokens and %d: %v, want a ContextLengthError", c.prompt, c.max, err)
			}
		}
	})
}

func TestRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	other := plan.NewDense(plan.Shape{Layers: layers + 1, KVHeads: kvHeads})
	ragged := plan.NewDense(shape)
	ragged.Heads = [][]int{{0, 0}, {0}}
	inRig(t, engine.Options{}, func(r *rig) {
		for name, req := range map[string]engine.Request{
			"empty prompt":        {Plan: plan.NewDense(shape)},
			"no plan":             {Prompt: prompt(1, 1)},
			"negative max tokens": {Prompt: prompt(1, 1), Plan: plan.NewDense(shape), MaxTokens: -1},
			"plan of another":     {Prompt: prompt(1, 1), Plan: other},
			"ragged plan":         {Prompt: prompt(1, 1), Plan: ragged},
			"token too large":     {Prompt: []int32{vocab}, Plan: plan.NewDense(shape)},
			"negative token":      {Prompt: []int32{-1}, Plan: plan.NewDense(shape)},
		} {
			if _, err := r.Submit(r.Context(), req); !errors.Is(err, engine.ErrInvalidRequest) {
				t.Errorf("%s: %v, want ErrInvalidRequest", name, err)
			}
		}
		gone, cancel := context.WithCancel(r.Context())
		cancel()
		if _, err := r.Submit(gone, engine.Request{Prompt: prompt(1, 1), Plan: plan.NewDense(shape)}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before Submit: %v", err)
		}
	})
}

func TestAdmissionGoesByTheKVNeedOfThePlan(t *testing.T) {
	sparse := plan.Uniform("one block", shape, plan.Rule{})
	need := sparse.Bind(0).Pages(63 + 500)
	inRig(t, engine.Options{Pages: 3*need + need/2}, func(r *rig) {
		for i := range 5 {
			r.submit(engine.Request{Prompt: prompt(63, uint64(i)), MaxTokens: 501, Plan: sparse})
		}
		r.step(2)
		if s := r.Stats(); s.Running != 3 || s.Waiting != 2 || s.CommittedPages != 3*need {
			t.Errorf("%d pages a request: %+v", need, s)
		}
	})
}

func TestPrefillGivesItsPeakBackWhenItEnds(t *testing.T) {
	sparse := plan.Uniform("one block", shape, plan.Rule{})
	l := sparse.Bind(0)
	inRig(t, engine.Options{StepTokens: 512}, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(1024, 1), MaxTokens: 100, Plan: sparse})
		if got, want := r.Stats().CommittedPages, l.ChunkPages(512, 1024); got != want {
			t.Errorf("%d pages committed during the prefill, want those of its largest chunk, %d", got, want)
		}
		r.step(2)
		if got, want := r.Stats().CommittedPages, l.Pages(1024+99); got != want {
			t.Errorf("%d pages committed after the prefill, want %d", got, want)
		}
	})
}

func TestGrowingSequenceReservesItsPromptAndABlock(t *testing.T) {
	dense := plan.NewDense(shape)
	inRig(t, engine.Options{}, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(100, 1), Plan: dense})
		if got, want := r.Stats().CommittedPages, dense.Bind(0).Pages(164); got != want {
			t.Errorf("%d pages committed, want %d", got, want)
		}
	})
}

func TestShortRequestsOvertakeOneThatWaitsForPagesOnlySoOften(t *testing.T) {
	dense := plan.NewDense(shape)
	inRig(t, engine.Options{Pages: dense.Bind(0).Pages(640)}, func(r *rig) {
		r.submit(engine.Request{Prompt: prompt(10, 1), MaxTokens: 300, Plan: dense, Tenant: "first"})
		big := r.submit(engine.Request{Prompt: prompt(600, 2), MaxTokens: 40, Plan: dense, Tenant: "big"})
		admitted := make(chan engine.Event, 1)
		go func() {
			e, _ := big.Next()
			admitted <- e
		}()
		overtook := 0
		for i := range 100 {
			small := r.submit(engine.Request{Prompt: prompt(5, uint64(i)), MaxTokens: 1, Plan: dense, Tenant: "small"})
			r.step(3)                   // one may be without its prompt: see pace
			if r.Stats().Waiting == 2 { // the small one has to wait, too
				break
			}
			if got := drain(small); len(got.tokens) != 1 {
				t.Fatalf("small request %d ended with %+v", i, got.last)
			}
			overtook++
		}
		if overtook != 32 {
			t.Errorf("%d requests overtook the one that waits for pages, want 32", overtook)
		}
		for len(admitted) == 0 {
			r.step(1)
		}
	})
}

func TestRequestsThatAwaitAPrefixHoldNobodyUp(t *testing.T) {
	for _, tenants := range []struct{ documents, chats string }{{"a", "a"}, {"a", "b"}} {
		inRig(t, engine.Options{MaxSequences: 64, Pages: 4000}, func(r *rig) {
			document := prompt(4000, 1)
			for range 2 { // the second waits for what the first computes
				r.submit(engine.Request{Prompt: document, MaxTokens: 4, Tenant: tenants.documents})
			}
			const chats = 40 // more than may overtake one that lacks pages
			for i := range chats {
				r.submit(engine.Request{Prompt: prompt(10, uint64(9+i)), MaxTokens: 4, Tenant: tenants.chats})
			}
			r.step(1)
			if s := r.Stats(); s.Running != 1+chats || s.Waiting != 1 {
				t.Errorf("documents of %s, chats of %s: %d run and %d wait", tenants.documents, tenants.chats, s.Running, s.Waiting)
			}
		})
	}
}
