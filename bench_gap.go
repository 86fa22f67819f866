package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"text/tabwriter"
	"time"
)

// gapPoint is what a stream and a long prompt do to each other.
type gapPoint struct {
	Model              string `json:"model"`
	Where              string `json:"where"` // the backend, or the server's address
	Plan               string `json:"plan,omitempty"`
	StreamPromptTokens int    `json:"stream_prompt_tokens"`
	LongPromptTokens   int    `json:"long_prompt_tokens"`
	Runs               int    `json:"runs"`

	GapsAlone      int     `json:"gaps_alone"` // how many were measured
	GapAloneMedian float64 `json:"gap_alone_p50_ms"`
	GapAloneP95    float64 `json:"gap_alone_p95_ms"`

	GapsBeside      int     `json:"gaps_beside"`
	GapBesideMedian float64 `json:"gap_beside_p50_ms"`
	GapBesideP95    float64 `json:"gap_beside_p95_ms"`
	GapBesideMax    float64 `json:"gap_beside_max_ms"`

	PrefillAlone  float64 `json:"prefill_alone_ms"` // medians, from the request to the first token
	PrefillBeside float64 `json:"prefill_beside_ms"`

	GapRatio     float64 `json:"gap_p95_ratio"` // beside over alone
	PrefillRatio float64 `json:"prefill_ratio"`
}

// gapTarget is what completions are asked of: an engine or a server.
type gapTarget interface {
	// complete makes an answer of at most that many tokens to a random prompt, which no
	// other seed has, and tells when each arrives. It returns once the answer or ctx has
	// ended; a cancelled ctx is no error.
	complete(ctx context.Context, prompt, answer int, seed uint64, arrived func(time.Time)) error
}

var (
	_ gapTarget = (*engineTarget)(nil)
	_ gapTarget = (*serverTarget)(nil)
)

// runGap measures the gaps and prints them.
func (c *benchCmd) runGap(ctx context.Context) error {
	p := gapPoint{StreamPromptTokens: c.Depths[0], LongPromptTokens: c.GapPrompt, Runs: c.Repeat}
	var target gapTarget
	if c.URL != "" {
		s, err := newServerTarget(ctx, c.URL, c.APIKey)
		if err != nil {
			return err
		}
		p.Model, p.Where, target = s.model, c.URL, s
	} else {
		o, err := c.options()
		if err != nil {
			return err
		}
		o.NoPrefixCache, o.DecodeStretch, o.Warm = true, c.DecodeStretch, c.Rehearse
		if o.Context == 0 {
			o.Context = max(c.Depths[0]+c.GapTokens, c.GapPrompt+1)
		}
		e, names, err := c.open(ctx, o)
		if err != nil {
			return err
		}
		defer func() { _ = e.Close() }()
		p.Model, p.Where, p.Plan = e.Name(), e.Describe(), names[0]
		target = &engineTarget{engine: e, plan: names[0], temperature: c.Temperature}
	}
	g := &gapMeter{target: target, long: c.GapPrompt, stream: c.Depths[0], answer: c.GapTokens, alone: max(c.Steps, 1), seed: rand.Uint64()}
	if err := g.measure(ctx, c.Repeat, c.Rehearse); err != nil {
		return err
	}
	g.summarise(&p)
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(p)
	}
	return p.print(os.Stdout)
}

// print writes the table.
func (p gapPoint) print(w io.Writer) error {
	_, _ = fmt.Fprintf(w, "%s, %s", p.Model, p.Where)
	if p.Plan != "" {
		_, _ = fmt.Fprintf(w, ", plan %s", p.Plan)
	}
	_, _ = fmt.Fprintf(w, "\na stream after %d tokens; a prompt of %d tokens, %d times\n", p.StreamPromptTokens, p.LongPromptTokens, p.Runs)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "\tgaps\tgap p50 ms\tp95 ms\tlongest ms\tprompt ms\t")
	_, _ = fmt.Fprintf(t, "alone\t%d\t%.2f\t%.2f\t-\t%.1f\t\n", p.GapsAlone, p.GapAloneMedian, p.GapAloneP95, p.PrefillAlone)
	_, _ = fmt.Fprintf(t, "beside each other\t%d\t%.2f\t%.2f\t%.2f\t%.1f\t\n", p.GapsBeside, p.GapBesideMedian, p.GapBesideP95, p.GapBesideMax, p.PrefillBeside)
	_, _ = fmt.Fprintf(t, "ratio\t\t%.2f\t%.2f\t\t%.2f\t\n", p.GapBesideMedian/p.GapAloneMedian, p.GapRatio, p.PrefillRatio)
	return t.Flush()
}

// gapMeter measures a target.
type gapMeter struct {
	target       gapTarget
	long, stream int    // prompts, in tokens
	answer       int    // longest answer of the stream
	alone        int    // gaps to measure before each long prompt
	seed         uint64 // of the latest prompt; a server may know those of an earlier run

	gapsAlone, gapsBeside       []time.Duration
	prefillAlone, prefillBeside []time.Duration
}

// measure takes the figures, after a run that does not count when rehearse is set.
func (g *gapMeter) measure(ctx context.Context, runs int, rehearse bool) error {
	if rehearse {
		if err := g.run(ctx); err != nil {
			return err
		}
		g.gapsAlone, g.gapsBeside, g.prefillAlone, g.prefillBeside = nil, nil, nil, nil
	}
	for range runs {
		if err := g.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// run reads a long prompt alone, starts the stream, waits for enough gaps and reads
// another long prompt beside it.
func (g *gapMeter) run(ctx context.Context) error {
	took, _, err := g.prefill(ctx)
	if err != nil {
		return err
	}
	g.prefillAlone = append(g.prefillAlone, took)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &gapStream{enough: settleSteps + g.alone, ready: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- g.target.complete(ctx, g.stream, g.answer, g.nextSeed(), s.arrive) }()
	select {
	case <-s.ready:
	case err := <-ended:
		return errors.Join(fmt.Errorf("the stream ended before %d gaps were measured", s.enough), err)
	}
	took, asked, err := g.prefill(ctx)
	if err != nil {
		return err
	}
	g.prefillBeside = append(g.prefillBeside, took)
	select {
	case err := <-ended:
		return errors.Join(fmt.Errorf("the stream ended while the prompt of %d tokens was read; raise --gap-tokens", g.long), err)
	default:
	}
	cancel()
	if err := <-ended; err != nil {
		return err
	}
	alone, beside := s.split(asked, asked.Add(took))
	g.gapsAlone, g.gapsBeside = append(g.gapsAlone, alone...), append(g.gapsBeside, beside...)
	return nil
}

// prefill reads a long prompt and returns the time until its first token, and when it
// was asked for.
func (g *gapMeter) prefill(ctx context.Context) (time.Duration, time.Time, error) {
	var first time.Time
	asked := time.Now()
	err := g.target.complete(ctx, g.long, 1, g.nextSeed(), func(at time.Time) {
		if first.IsZero() {
			first = at
		}
	})
	if err == nil && first.IsZero() {
		err = errors.New("no token came")
	}
	if err != nil {
		return 0, asked, fmt.Errorf("reading a prompt of %d tokens: %w", g.long, err)
	}
	return first.Sub(asked), asked, nil
}

func (g *gapMeter) nextSeed() uint64 {
	g.seed++
	return g.seed
}

// summarise computes the figures.
func (g *gapMeter) summarise(p *gapPoint) {
	p.GapsAlone, p.GapsBeside = len(g.gapsAlone), len(g.gapsBeside)
	p.GapAloneMedian, p.GapAloneP95 = milliseconds(percentile(g.gapsAlone, 0.5)), milliseconds(percentile(g.gapsAlone, 0.95))
	p.GapBesideMedian, p.GapBesideP95 = milliseconds(percentile(g.gapsBeside, 0.5)), milliseconds(percentile(g.gapsBeside, 0.95))
	p.GapBesideMax = milliseconds(percentile(g.gapsBeside, 1))
	p.PrefillAlone, p.PrefillBeside = milliseconds(percentile(g.prefillAlone, 0.5)), milliseconds(percentile(g.prefillBeside, 0.5))
	p.GapRatio, p.PrefillRatio = ratio(p.GapBesideP95, p.GapAloneP95), ratio(p.PrefillBeside, p.PrefillAlone)
}

// ratio is 0 where there is none, which JSON has no number for.
func ratio(a, b float64) float64 {
	if r := a / b; !math.IsNaN(r) && !math.IsInf(r, 0) {
		return r
	}
	return 0
}

// gapStream collects the arrivals of a stream's tokens.
type gapStream struct {
	enough int
	ready  chan struct{} // closed once there are that many

	mu sync.Mutex
	at []time.Time
}

func (s *gapStream) arrive(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at = append(s.at, at); len(s.at) == s.enough+1 {
		close(s.ready)
	}
}

// split returns the gaps before a time, the first of the stream aside, and those of
// which some part lies between two times.
func (s *gapStream) split(from, to time.Time) (before, within []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1 + settleSteps; i < len(s.at); i++ {
		began, ended := s.at[i-1], s.at[i]
		switch {
		case !ended.After(from):
			before = append(before, ended.Sub(began))
		case began.Before(to):
			within = append(within, ended.Sub(began))
		}
	}
	return before, within
}
