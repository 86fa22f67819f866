package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/plan"
)

// bench measures points on one engine.
type bench struct {
	cmd    *benchCmd
	engine *runtime.Engine
	out    *benchOutput
	bound  float64         // bytes a second; 0 when unknown
	warm   map[[2]int]bool // depths and batches whose shapes the device has seen
	seed   uint64          // of the latest prompts
}

// point is what is measured: a plan, and prompts of those lengths.
type point struct {
	plan    *plan.Plan
	depth   int // mean length
	lengths []int
}

// String names the point for errors.
func (x point) String() string {
	return fmt.Sprintf("plan %s, %d streams of %d tokens", x.plan.Name, len(x.lengths), x.depth)
}

// points lists what is to be measured, or says what cannot be.
func (b *bench) points(plans []string) ([]point, error) {
	var all []point
	for _, name := range plans {
		for _, p := range b.engine.Plans() {
			if p.Name != name {
				continue
			}
			for _, depth := range b.cmd.Depths {
				for _, batch := range b.cmd.Batches {
					x := point{p, depth, promptLengths(depth, batch, b.cmd.PromptMix)}
					if err := b.check(x); err != nil {
						return nil, fmt.Errorf("%v: %w", x, err)
					}
					all = append(all, x)
				}
			}
		}
	}
	return all, nil
}

// errNotAtOnce is the cause when the streams of a batch could not run together.
var errNotAtOnce = errors.New("the streams do not all run at a time; raise --kv-memory or --context, or lower --batches, --depths or --steps")

// findBound returns what the bandwidth is held against and where it comes from.
func (b *bench) findBound() string {
	if b.cmd.Bandwidth > 0 {
		b.bound = b.cmd.Bandwidth * 1e9
		return boundGiven
	}
	var err error
	if b.bound, err = b.engine.ReadBandwidth(); err != nil {
		b.bound = 0
		fmt.Fprintf(os.Stderr, "moaserve: no bound: %v\n", err)
		return ""
	}
	return boundMeasured
}

// median measures a point as often as asked for and returns the run of median decode
// speed, or of median prefill speed when nothing was decoded.
func (b *bench) median(ctx context.Context, x point) (benchPoint, error) {
	batch := len(x.lengths)
	if b.cmd.Rehearse && !b.warm[[2]int{x.depth, batch}] {
		b.warm[[2]int{x.depth, batch}] = true
		// As many as show every kind of step: a full one, and what is left.
		n := min(batch, 2*b.engine.StepTokens()/x.depth+2)
		if _, err := b.fill(ctx, x.plan, b.prompts(x.lengths[:n]), nil); err != nil {
			return benchPoint{}, err
		}
	}
	runs := make([]benchPoint, b.cmd.Repeat)
	for i := range runs {
		var err error
		if runs[i], err = b.run(ctx, x); err != nil {
			return benchPoint{}, err
		}
	}
	slices.SortFunc(runs, func(x, y benchPoint) int {
		return cmp.Or(cmp.Compare(x.DecodeTokensPerSecond, y.DecodeTokensPerSecond), cmp.Compare(x.PrefillTokensPerSecond, y.PrefillTokensPerSecond))
	})
	return runs[len(runs)/2], nil
}

// check refuses prompts that do not fit the context, and those whose spans change with
// the answer: they could not be read first and continued later.
func (b *bench) check(x point) error {
	longest, answer := slices.Max(x.lengths), answerTokens(len(x.lengths), b.cmd.Steps)
	if longest+1+answer > b.engine.Context() {
		return fmt.Errorf("prompts of up to %d tokens and %d to decode do not fit the context of %d tokens", longest, 1+answer, b.engine.Context())
	}
	if x.plan.Span != plan.SpanLength || b.cmd.Steps == 0 {
		return nil
	}
	for _, n := range x.lengths {
		if read, whole := plan.Bucket(n+1), plan.Bucket(n+1+answer); read != whole {
			return fmt.Errorf("the plan has span: length, and its spans for a prompt of %d tokens are those of %d, with an answer those of %d: take prompts of at most %d tokens",
				n, read, whole, read-1-answer)
		}
	}
	return nil
}

// prompts returns prompts that no other point had.
func (b *bench) prompts(lengths []int) [][]int32 {
	b.seed++
	return randomPrompts(lengths, b.engine.Model().Vocab, b.seed)
}

// run measures a point once.
func (b *bench) run(ctx context.Context, x point) (benchPoint, error) {
	p, lengths := x.plan, x.lengths
	prompts := b.prompts(lengths)
	sessions := make([]string, len(prompts))
	for i := range sessions {
		sessions[i] = fmt.Sprintf("bench-%d-%d", b.seed, i)
		defer b.engine.EndSession("", sessions[i])
	}
	f, err := b.fill(ctx, p, prompts, sessions)
	if err != nil {
		return benchPoint{}, err
	}
	r := benchPoint{
		Model: b.engine.Name(), Backend: b.engine.Describe(), Plan: p.Name, Density: p.Density(x.depth),
		Depth: x.depth, Batch: len(prompts), PromptMix: b.cmd.PromptMix, PromptTokens: sum(lengths),
		PrefillTokensPerSecond: float64(sum(lengths)) / f.took.Seconds(),
		TTFTMedian:             milliseconds(percentile(f.first, 0.5)), TTFTMax: milliseconds(slices.Max(f.first)),
	}
	if b.cmd.Steps == 0 {
		return r, nil
	}
	for i := range prompts {
		prompts[i] = append(prompts[i], f.tokens[i])
	}
	before := b.engine.Stats().Preemptions
	d, err := b.decode(ctx, p, prompts, sessions)
	if err != nil {
		return benchPoint{}, err
	}
	if b.engine.Stats().Preemptions != before {
		return benchPoint{}, errNotAtOnce
	}
	b.summarise(&r, d)
	return r, nil
}

// summarise computes the figures of what was decoded.
func (b *bench) summarise(r *benchPoint, d *decoded) {
	streams := len(d.streams)
	steps := float64(d.tokens()) / float64(streams)
	pages := int64(0)
	for _, s := range d.streams {
		pages += s.kvPages()
		r.KVPages += s.layout.Pages(s.prompt + s.to - 1)
	}
	r.Steps = b.cmd.Steps
	r.DecodeTokensPerSecond = float64(d.tokens()) / d.took.Seconds()
	r.StepTime = milliseconds(d.took) / steps
	r.GapMedian, r.GapP95 = milliseconds(percentile(d.gaps, 0.5)), milliseconds(percentile(d.gaps, 0.95))
	r.WeightBytesPerStep = b.engine.WeightBytes(streams)
	r.KVBytesPerStep = int64(float64(pages) * float64(b.engine.PageBytes()) / steps)
	bandwidth := float64(r.WeightBytesPerStep+r.KVBytesPerStep) * steps / d.took.Seconds()
	r.Bandwidth = bandwidth / 1e9
	if b.bound > 0 {
		r.Bound, r.BoundSource, r.ShareOfBound = b.bound/1e9, b.out.boundSource, bandwidth/b.bound
	}
	if d.known {
		idle := max(0, 1-d.busy.Seconds()/d.took.Seconds())
		r.DeviceIdle = &idle
	}
}

// filled is what was measured while the prompts were read.
type filled struct {
	took   time.Duration   // from the first request to the last first token
	first  []time.Duration // from each request to its first token
	tokens []int32         // the first tokens
}

// fill reads all prompts, and nothing else. What it leaves in the KV cache belongs to
// the sessions, if there are any, so that decoding goes on from there.
func (b *bench) fill(ctx context.Context, p *plan.Plan, prompts [][]int32, sessions []string) (*filled, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &filled{first: make([]time.Duration, len(prompts)), tokens: make([]int32, len(prompts))}
	ends := make([]time.Time, len(prompts))
	results := make(chan error, len(prompts))
	begin := time.Now()
	for i, prompt := range prompts {
		r := runtime.Request{Prompt: prompt, Plan: p.Name, MaxTokens: 1, IgnoreEOS: true}
		if sessions != nil {
			r.Session = sessions[i]
		}
		asked := time.Now()
		events, err := b.engine.Generate(ctx, r)
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
