package runtime

import (
	"context"
	"fmt"

	"github.com/moaserve/moaserve/runtime/engine"
)

// Evaluate runs a text through the model under the named plan, exactly as a
// prompt is prefilled, and hands the raw logits [vocab] of every position but the
// last to visit, in order. visit may keep the slice. It is meant for evaluation
// programs: the logits of a chunk are all in memory at a time.
func (e *Engine) Evaluate(ctx context.Context, tokens []int32, planName string, visit func(position int, logits []float32) error) error {
	p := e.plan(planName)
	if p == nil {
		return fmt.Errorf("%w %q", ErrUnknownPlan, planName)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := e.engine.Submit(ctx, engine.Request{ID: "evaluate", Prompt: tokens, Plan: p, MaxTokens: 1, Logits: true})
	if err != nil {
		return e.refusal(err, p, Request{Prompt: tokens, MaxTokens: 1})
	}
	position := 0
	for {
		ev, ok := s.Next()
		if !ok {
			return nil
		}
		for _, logits := range ev.Logits {
			if err := visit(position, logits); err != nil {
				return err
			}
			position++
		}
		if ev.Kind == engine.KindFinished && ev.Reason != engine.ReasonLength && ev.Reason != engine.ReasonStop {
			if ev.Err != nil {
				return ev.Err
			}
			return ctx.Err()
		}
	}
}
