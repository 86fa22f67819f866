package measure

import (
	"context"
	"time"

	"github.com/moaserve/moaserve/runtime"
)

// target is what completions are asked of: an engine or a server.
type target interface {
	// complete makes an answer of at most that many tokens to a random prompt, which no
	// other seed has, and tells when each arrives. It returns once the answer or ctx has
	// ended; a cancelled ctx is no error.
	complete(ctx context.Context, prompt, answer int, seed uint64, arrived func(time.Time)) error
}

var (
	_ target = (*engineTarget)(nil)
	_ target = (*serverTarget)(nil)
)

// unlessCancelled drops an error that comes of ctx having been cancelled.
func unlessCancelled(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// engineTarget completes in this process.
type engineTarget struct {
	engine      *runtime.Engine
	plan        string
	temperature float32
}

// complete implements target.
func (t *engineTarget) complete(ctx context.Context, prompt, answer int, seed uint64, arrived func(time.Time)) error {
	r := runtime.Request{
		Prompt: randomPrompts([]int{prompt}, t.engine.Model().Vocab, seed)[0], Plan: t.plan, MaxTokens: answer, IgnoreEOS: true,
	}
	r.Sampling.Temperature = t.temperature
	events, err := t.engine.Generate(ctx, r)
	if err != nil {
		return err
	}
	for ev := range events {
		if len(ev.Tokens) > 0 {
			arrived(time.Now())
		}
		if ev.Err != nil {
			err = ev.Err
		}
	}
	return unlessCancelled(ctx, err)
}
