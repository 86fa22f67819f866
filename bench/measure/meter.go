package measure

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/moaserve/moaserve/runtime"
)

// Meter measures points on one engine. One goroutine uses it, and nothing else uses the
// engine meanwhile.
type Meter struct {
	engine      *runtime.Engine
	options     Options
	bound       float64 // bytes a second; 0 when unknown
	boundSource string
	warm        map[[2]int]bool // depths and batches whose shapes the device has seen
	seed        uint64          // of the latest prompts
}

// New returns a meter on an engine that was opened with o's [Options.EngineOptions]. The
// engine remains the caller's, who closes it.
func New(e *runtime.Engine, o Options) *Meter {
	return &Meter{engine: e, options: o, warm: make(map[[2]int]bool)}
}

// FindBound finds what the bandwidth is held against: what the options give, or else
// what it measures. After an error there is no bound, and the results lack what it is
// needed for.
func (m *Meter) FindBound() error {
	if m.options.Bound > 0 {
		m.bound, m.boundSource = m.options.Bound, boundGiven
		return nil
	}
	bound, err := m.engine.ReadBandwidth()
	if err != nil {
		return err
	}
	m.bound, m.boundSource = bound, boundMeasured
	return nil
}

// Measure measures a point as often as asked for and returns the run of median decode
// speed, or of median prefill speed when nothing was decoded.
func (m *Meter) Measure(ctx context.Context, x Point) (Result, error) {
	batch := len(x.lengths)
	if m.options.Rehearse && !m.warm[[2]int{x.depth, batch}] {
		m.warm[[2]int{x.depth, batch}] = true
		// As many as show every kind of step: a full one, and what is left.
		n := min(batch, 2*m.engine.StepTokens()/x.depth+2)
		if _, err := m.prefill(ctx, x.plan, m.prompts(x.lengths[:n]), nil); err != nil {
			return Result{}, err
		}
	}
	runs := make([]Result, m.options.Repeat)
	for i := range runs {
		var err error
		if runs[i], err = m.run(ctx, x); err != nil {
			return Result{}, err
		}
	}
	slices.SortFunc(runs, func(x, y Result) int {
		return cmp.Or(cmp.Compare(x.DecodeTokensPerSecond, y.DecodeTokensPerSecond), cmp.Compare(x.PrefillTokensPerSecond, y.PrefillTokensPerSecond))
	})
	return runs[len(runs)/2], nil
}

// prompts returns prompts that no other point had.
func (m *Meter) prompts(lengths []int) [][]int32 {
	m.seed++
	return randomPrompts(lengths, m.engine.Model().Vocab, m.seed)
}

// run measures a point once.
func (m *Meter) run(ctx context.Context, x Point) (Result, error) {
	p, lengths := x.plan, x.lengths
	prompts := m.prompts(lengths)
	sessions := make([]string, len(prompts))
	for i := range sessions {
		sessions[i] = fmt.Sprintf("bench-%d-%d", m.seed, i)
		defer m.engine.EndSession("", sessions[i])
	}
	f, err := m.prefill(ctx, p, prompts, sessions)
	if err != nil {
		return Result{}, err
	}
	r := Result{
		Model: m.engine.Name(), Backend: m.engine.Describe(), Plan: p.Name, Density: p.Density(x.depth),
		Depth: x.depth, Batch: len(prompts), PromptMix: m.options.PromptMix, PromptTokens: sum(lengths),
		PrefillTokensPerSecond: float64(sum(lengths)) / f.took.Seconds(),
		TTFTMedian:             milliseconds(percentile(f.first, 0.5)), TTFTMax: milliseconds(slices.Max(f.first)),
	}
	if m.options.Steps == 0 {
		return r, nil
	}
	for i := range prompts {
		prompts[i] = append(prompts[i], f.tokens[i])
	}
	before := m.engine.Stats().Preemptions
	d, err := m.decode(ctx, p, prompts, sessions)
	if err != nil {
		return Result{}, err
	}
	if m.engine.Stats().Preemptions != before {
		return Result{}, errNotAtOnce
	}
	m.summarise(&r, d)
	return r, nil
}

// summarise computes the figures of what was decoded.
func (m *Meter) summarise(r *Result, d *decoded) {
	streams := len(d.streams)
	steps := float64(d.tokens()) / float64(streams)
	pages := int64(0)
	for _, s := range d.streams {
		pages += s.kvPages()
		r.KVPages += s.layout.Pages(s.prompt + s.to - 1)
	}
	r.Steps = m.options.Steps
	r.DecodeTokensPerSecond = float64(d.tokens()) / d.took.Seconds()
	r.StepTime = milliseconds(d.took) / steps
	r.GapMedian, r.GapP95 = milliseconds(percentile(d.gaps, 0.5)), milliseconds(percentile(d.gaps, 0.95))
	r.WeightBytesPerStep = m.engine.WeightBytes(streams)
	r.KVBytesPerStep = int64(float64(pages) * float64(m.engine.PageBytes()) / steps)
	bandwidth := float64(r.WeightBytesPerStep+r.KVBytesPerStep) * steps / d.took.Seconds()
	r.Bandwidth = bandwidth / 1e9
	if m.bound > 0 {
		r.Bound, r.BoundSource, r.ShareOfBound = m.bound/1e9, m.boundSource, bandwidth/m.bound
	}
	if d.known {
		idle := max(0, 1-d.busy.Seconds()/d.took.Seconds())
		r.DeviceIdle = &idle
	}
}
