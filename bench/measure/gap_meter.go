package measure

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// gapMeter measures a target.
type gapMeter struct {
	target  target
	options GapOptions
	seed    uint64 // of the latest prompt

	gapsAlone, gapsBeside       []time.Duration
	prefillAlone, prefillBeside []time.Duration
}

// measure takes the figures, after a run that does not count when the options ask for it.
func (g *gapMeter) measure(ctx context.Context) error {
	if g.options.Rehearse {
		if err := g.run(ctx); err != nil {
			return err
		}
		g.gapsAlone, g.gapsBeside, g.prefillAlone, g.prefillBeside = nil, nil, nil, nil
	}
	for range g.options.Runs {
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
	s := &gapStream{enough: settleSteps + g.options.Gaps, ready: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		ended <- g.target.complete(ctx, g.options.StreamPrompt, g.options.Answer, g.nextSeed(), s.arrive)
	}()
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
		return errors.Join(fmt.Errorf("the stream ended while the prompt of %d tokens was read; raise --gap-tokens", g.options.LongPrompt), err)
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
	err := g.target.complete(ctx, g.options.LongPrompt, 1, g.nextSeed(), func(at time.Time) {
		if first.IsZero() {
			first = at
		}
	})
	if err == nil && first.IsZero() {
		err = errors.New("no token came")
	}
	if err != nil {
		return 0, asked, fmt.Errorf("reading a prompt of %d tokens: %w", g.options.LongPrompt, err)
	}
	return first.Sub(asked), asked, nil
}

func (g *gapMeter) nextSeed() uint64 {
	g.seed++
	return g.seed
}

// summarise computes the figures.
func (g *gapMeter) summarise() GapResult {
	p := GapResult{StreamPromptTokens: g.options.StreamPrompt, LongPromptTokens: g.options.LongPrompt, Runs: g.options.Runs}
	p.GapsAlone, p.GapsBeside = len(g.gapsAlone), len(g.gapsBeside)
	p.GapAloneMedian, p.GapAloneP95 = milliseconds(percentile(g.gapsAlone, 0.5)), milliseconds(percentile(g.gapsAlone, 0.95))
	p.GapBesideMedian, p.GapBesideP95 = milliseconds(percentile(g.gapsBeside, 0.5)), milliseconds(percentile(g.gapsBeside, 0.95))
	p.GapBesideMax = milliseconds(percentile(g.gapsBeside, 1))
	p.PrefillAlone, p.PrefillBeside = milliseconds(percentile(g.prefillAlone, 0.5)), milliseconds(percentile(g.prefillBeside, 0.5))
	p.GapRatio, p.PrefillRatio = ratio(p.GapBesideP95, p.GapAloneP95), ratio(p.PrefillBeside, p.PrefillAlone)
	return p
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
