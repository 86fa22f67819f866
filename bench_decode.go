package main

import (
	"context"
	"fmt"
	"slices"
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
	busy    time.Duration   // of the device; measured tells whether it is known
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

// tick is the arrival of one token, or the end of a stream.
type tick struct {
	stream int
	at     time.Time
	ended  error
}

// decode lets all streams decode and measures steps of them. The prompts are those of
// fill, each with its first token.
func (b *bench) decode(ctx context.Context, p *plan.Plan, prompts [][]int32, sessions []string) (*decoded, error) {
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
	c := newCollector(len(prompts), b.cmd.Steps, b.engine.BusyTime)
	for i, prompt := range prompts {
		r := runtime.Request{Prompt: prompt, Plan: p.Name, IgnoreEOS: true, Session: sessions[i]}
		r.Sampling.Temperature = b.cmd.Temperature
		if p.Span == plan.SpanLength {
			// The spans depend on it. Elsewhere pages are taken as they are needed, not
			// set aside for an answer that is never finished.
			r.MaxTokens = answerTokens(len(prompts), b.cmd.Steps)
		}
		events, err := b.engine.Generate(ctx, r)
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
					b.engine.EndSession("", sessions[i])
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
		layout := p.Bind(len(prompt) + answerTokens(len(prompts), b.cmd.Steps))
		d.streams = append(d.streams, decodedStream{layout: layout, prompt: len(prompt), from: c.from[i], to: c.count[i]})
	}
	return d, nil
}

// collector decides from the arrival of tokens which of them count.
type collector struct {
	steps    int
	busyTime func() (time.Duration, bool)

	count, base, from []int // tokens of each stream: so far, when all had begun, when counting began
	last              []time.Time
	joined, counting  bool
	done              bool
	begin, end        time.Time
	gaps              []time.Duration

	busyBegin, busyEnd time.Duration
	busyKnown          bool
}

func newCollector(streams, steps int, busyTime func() (time.Duration, bool)) *collector {
	return &collector{steps: steps, busyTime: busyTime, count: make([]int, streams), last: make([]time.Time, streams)}
}

// arrive counts a token.
func (c *collector) arrive(t tick) {
	if c.done {
		return
	}
	c.count[t.stream]++
	if c.counting {
		c.gaps = append(c.gaps, t.at.Sub(c.last[t.stream]))
	}
	c.last[t.stream] = t.at
	switch {
	case !c.joined:
		if slices.Min(c.count) > 0 {
			c.joined, c.base = true, slices.Clone(c.count)
		}
	case !c.counting:
		if since(c.count, c.base) >= settleSteps {
			c.counting, c.from, c.begin = true, slices.Clone(c.count), t.at
			c.busyBegin, c.busyKnown = c.busyTime()
		}
	case since(c.count, c.from) >= c.steps:
		c.done, c.end = true, t.at
		c.busyEnd, _ = c.busyTime()
	}
}

// since returns the least number of tokens by which a stream has grown.
func since(count, base []int) int {
	least := count[0] - base[0]
	for i := range count {
		least = min(least, count[i]-base[i])
	}
	return least
}

// endCause says why a stream may have ended too early.
func endCause(ev runtime.Event) error {
	if ev.Err != nil {
		return ev.Err
	}
	return errNotAtOnce
}
