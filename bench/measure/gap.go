package measure

import (
	"context"

	"github.com/moaserve/moaserve/runtime"
)

// GapOptions say what [EngineGaps] and [ServerGaps] measure.
type GapOptions struct {
	// StreamPrompt and LongPrompt are the lengths of the prompts, in tokens: of the stream
	// that decodes, and of what is read alone and beside it.
	StreamPrompt int
	LongPrompt   int
	// Answer is the longest answer of the stream, in tokens. It has to last until the long
	// prompt was read.
	Answer int
	// Gaps is how many gaps are measured before each long prompt, at least 1.
	Gaps int
	// Runs is how often it is done, at least once; the gaps of all runs are taken together.
	Runs int
	// Rehearse does it once more before, which does not count.
	Rehearse bool
	// Plans are written as for [Options]; the first is measured. A server takes its own.
	Plans []string
	// Temperature of the sampling in an engine; 0 takes the likeliest token.
	Temperature float32
	// Seed makes the prompts. Another one for each measurement keeps them new to a server
	// that has been measured before.
	Seed uint64
}

// EngineOptions returns r as the measurement needs it: the plans are there, the prompts
// fit, and no prompt is known from an earlier one.
func (o GapOptions) EngineOptions(r runtime.Options) runtime.Options {
	// Dense is the default, so that the KV cache is sized for the plan that takes most.
	r.Plan, r.Plans = "dense", o.Plans
	r.NoPrefixCache, r.Warm = true, o.Rehearse
	if r.Context == 0 {
		r.Context = max(o.StreamPrompt+o.Answer, o.LongPrompt+1)
	}
	return r
}

// EngineGaps measures an engine that was opened with o's [GapOptions.EngineOptions], and
// which nothing else uses meanwhile.
func EngineGaps(ctx context.Context, e *runtime.Engine, o GapOptions) (GapResult, error) {
	plans, err := plansOf(e, o.Plans)
	if err != nil {
		return GapResult{}, err
	}
	t := &engineTarget{engine: e, plan: plans[0].Name, temperature: o.Temperature}
	r, err := gaps(ctx, t, o)
	if err != nil {
		return GapResult{}, err
	}
	r.Model, r.Where, r.Plan = e.Name(), e.Describe(), t.plan
	return r, nil
}

// ServerGaps measures the first model of an OpenAI-compatible server, by streamed
// completions of random words. The key may be empty.
func ServerGaps(ctx context.Context, url, key string, o GapOptions) (GapResult, error) {
	t, err := newServerTarget(ctx, url, key)
	if err != nil {
		return GapResult{}, err
	}
	r, err := gaps(ctx, t, o)
	if err != nil {
		return GapResult{}, err
	}
	r.Model, r.Where = t.model, url
	return r, nil
}

// gaps measures a target.
func gaps(ctx context.Context, t target, o GapOptions) (GapResult, error) {
	g := &gapMeter{target: t, options: o, seed: o.Seed}
	if err := g.measure(ctx); err != nil {
		return GapResult{}, err
	}
	return g.summarise(), nil
}
