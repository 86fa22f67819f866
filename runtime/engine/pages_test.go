package engine_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestPagesAreToldByPlan(t *testing.T) {
	inRig(t, engine.Options{}, func(r *rig) {
		dense := plan.NewDense(shape)
		drained := r.submit(engine.Request{Prompt: prompt(130, 1), Plan: dense, MaxTokens: 1})
		r.step(1)
		drain(drained)
		r.submit(engine.Request{Prompt: prompt(100, 2), Plan: mixed(plan.SpanPosition), MaxTokens: 9})
		r.step(1) // its prompt; its first token waits

		got := make(chan []engine.PlanPages, 1)
		go func() {
			pages, err := r.PlanPages(r.Context())
			if err != nil {
				t.Error(err)
			}
			got <- pages
		}()
		synctest.Wait()
		r.step(1) // it is answered between steps
		perBlock := layers * kvHeads
		want := []engine.PlanPages{
			{Plan: dense.Name, Prefixes: 1, PrefixTokens: 128, PrefixPages: 2 * perBlock},
			{Plan: "mixed", Sequences: 1, SequenceTokens: 101, SequencePages: 2 * perBlock, Prefixes: 1, PrefixTokens: 64, PrefixPages: perBlock},
		}
		if pages := <-got; !slices.Equal(pages, want) {
			t.Errorf("%+v, want %+v", pages, want)
		}
	})
}

func TestPagesOfAClosedEngine(t *testing.T) {
	e := free(t, engine.Options{Pages: 10})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.PlanPages(t.Context()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}
