package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/plan"
)

const (
	// settleSteps of all streams pass before those that count: the first steps of a
	// shape are tuned and recorded.
	settleSteps = 8
	// joinSteps and one for each stream are how many steps may pass until all streams
	// take part.
	joinSteps = 32
)

// answerTokens is how many tokens a stream may have to make until it was measured.
func answerTokens(streams, steps int) int {
	if steps == 0 {
		return 1
	}
	return joinSteps + streams + settleSteps + steps
}

// decoded is what was measured while all streams decoded.
type decoded struct {
	streams []decodedStream
	took    time.Duration
	gaps    []time.Duration // between the tokens of a stream, all streams
	busy    time.Duration   // of the device; known tells whether it measures that
	known   bool
}

// tokens counts the tokens of all streams.
func (d *decoded) tokens() int {
	n := 0
	for _, s := range d.streams {
		n += s.to - s.from
	}
	return n
}

// decode lets all streams decode and measures steps of them. The prompts are those of
// prefill, each with its first token.
func (m *Meter) decode(ctx context.Context, p *plan.Plan, prompts [][]int32, sessions []string) (*decoded, error) {
	ctx, cancel := context.WithCancel(ctx)
	ticks := make(chan tick, 16*len(prompts))
	running := 0
	defer func() {
		cancel()
		for ; running > 0; running-- { // until all pages are free again
			for t := range ticks {
				if t.ended != nil {
					break
				}
			}
		}
	}()
	c := newCollector(len(prompts), m.options.Steps, m.engine.BusyTime)
	for i, prompt := range prompts {
		r := runtime.Request{Prompt: prompt, Plan: p.Name, IgnoreEOS: true, Session: sessions[i]}
		r.Sampling.Temperature = m.options.Temperature
		if p.Span == plan.SpanLength {
			// The spans depend on it. Elsewhere pages are taken as they are needed, not
			// set aside for an answer that is never finished.
			r.MaxTokens = answerTokens(len(prompts), m.options.Steps)
		}
		events, err := m.engine.Generate(ctx, r)
		if err != nil {
			return nil, err
		}
		running++
		go func() {
			end := tick{stream: i, ended: context.Canceled}
			for ev := range events {
				switch {
				case ev.Kind == runtime.EventAdmitted:
					// What was kept of the prompt is this stream's now.
					m.engine.EndSession("", sessions[i])
				case len(ev.Tokens) > 0:
					ticks <- tick{stream: i, at: time.Now()}
				case ev.Kind == runtime.EventFinished:
					end.ended = fmt.Errorf("stream %d ended (%s) before it was measured: %w", i, ev.Reason, endCause(ev))
				}
			}
			ticks <- end
		}()
	}
	for !c.done {
		t := <-ticks
		if t.ended != nil {
			running--
			return nil, t.ended
		}
		c.arrive(t)
	}
	d := &decoded{took: c.end.Sub(c.begin), gaps: c.gaps, busy: c.busyEnd - c.busyBegin, known: c.busyKnown}
	for i, prompt := range prompts {
		// Bind is told what the engine told it.
		layout := p.Bind(len(prompt) + answerTokens(len(prompts), m.options.Steps))
		d.streams = append(d.streams, decodedStream{layout: layout, prompt: len(prompt), from: c.from[i], to: c.count[i]})
	}
	return d, nil
}

// endCause says why a stream may have ended too early.
func endCause(ev runtime.Event) error {
	if ev.Err != nil {
		return ev.Err
	}
	return errNotAtOnce
}
