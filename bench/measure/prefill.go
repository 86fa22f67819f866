package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/plan"
)

// prefilled is what was measured while the prompts were read.
type prefilled struct {
	took   time.Duration   // from the first request to the last first token
	first  []time.Duration // from each request to its first token
	tokens []int32         // the first tokens
}

// prefill reads all prompts, and nothing else. What it leaves in the KV cache belongs to
// the sessions, if there are any, so that decoding goes on from there.
func (m *Meter) prefill(ctx context.Context, p *plan.Plan, prompts [][]int32, sessions []string) (*prefilled, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &prefilled{first: make([]time.Duration, len(prompts)), tokens: make([]int32, len(prompts))}
	ends := make([]time.Time, len(prompts))
	results := make(chan error, len(prompts))
	begin := time.Now()
	for i, prompt := range prompts {
		r := runtime.Request{Prompt: prompt, Plan: p.Name, MaxTokens: 1, IgnoreEOS: true}
		if sessions != nil {
			r.Session = sessions[i]
		}
		asked := time.Now()
		events, err := m.engine.Generate(ctx, r)
		if err != nil {
			return nil, err
		}
		go func() {
			err := errors.New("no token came")
			for ev := range events {
				switch {
				case len(ev.Tokens) > 0:
					ends[i] = time.Now()
					f.first[i], f.tokens[i], err = ends[i].Sub(asked), ev.Tokens[0].ID, nil
				case ev.Err != nil:
					err = ev.Err
				}
			}
			results <- err
		}()
	}
	for range prompts {
		if err := <-results; err != nil {
			return nil, fmt.Errorf("reading the prompts: %w", err)
		}
	}
	f.took = slices.MaxFunc(ends, time.Time.Compare).Sub(begin)
	return f, nil
}
