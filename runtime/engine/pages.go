package engine

import (
	"cmp"
	"context"
	"slices"

	"github.com/moaserve/moaserve/runtime/kv"
)

// PlanPages says what the sequences and prefixes of one plan hold. A page counts
// once for each that holds it, so the sums may exceed the pages there are.
type PlanPages struct {
	Plan           string
	Sequences      int // that run
	SequenceTokens int // computed
	SequencePages  int
	Prefixes       int // that are kept
	PrefixTokens   int
	PrefixPages    int
}

// PlanPages returns what each plan in use holds, by name. It waits for the end of
// the step that runs.
func (e *Engine) PlanPages(ctx context.Context) ([]PlanPages, error) {
	answer := make(chan []PlanPages, 1)
	select {
	case e.questions <- func() { answer <- e.planPages() }:
		return <-answer, nil // the engine answers at once
	case <-e.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *Engine) planPages() []PlanPages {
	byPlan := make(map[string]*PlanPages)
	of := func(name string) *PlanPages {
		if byPlan[name] == nil {
			byPlan[name] = &PlanPages{Plan: name}
		}
		return byPlan[name]
	}
	for _, s := range e.running {
		p := of(s.req.Plan.Name)
		p.Sequences++
		p.SequenceTokens += s.kv.Len()
		p.SequencePages += s.kv.Pages()
	}
	e.prefixes.All(func(x kv.Kept) bool {
		p := of(x.Snapshot.Layout().Plan().Name)
		p.Prefixes++
		p.PrefixTokens += x.Snapshot.Tokens()
		p.PrefixPages += x.Snapshot.Pages()
		return true
	})
	var out []PlanPages
	for _, p := range byPlan {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b PlanPages) int { return cmp.Compare(a.Plan, b.Plan) })
	return out
}
