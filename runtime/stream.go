package runtime

import (
	"context"
	"slices"

	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// stream turns the tokens of one sequence into text. Its goroutine ends when the
// sequence has finished or the receiver has left.
type stream struct {
	e       *Engine
	r       Request
	seq     *engine.Stream
	cancel  context.CancelFunc
	decoder *tokenizer.Decoder
	stop    *stopMatcher
	usage   Usage
}

func newStream(ctx context.Context, e *Engine, p *plan.Plan, r Request) (*stream, error) {
	ends := slices.Clone(r.StopTokenIDs)
	if !r.IgnoreEOS {
		ends = append(ends, e.tokenizer.EndOfGeneration()...)
	}
	r.Sampling.Stop = ends
	// A stop string ends the sequence while its receiver still listens.
	seqCtx, cancel := context.WithCancel(ctx)
	seq, err := e.engine.Submit(seqCtx, engine.Request{
		ID: r.ID, Prompt: r.Prompt, Plan: p, Sampling: r.Sampling, MaxTokens: r.MaxTokens,
		Stop: ends, Tenant: r.Tenant, Session: r.Session, Progress: r.Progress,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return &stream{
		e: e, r: r, seq: seq, cancel: cancel,
		decoder: e.tokenizer.NewContinuation(true),
		stop:    newStopMatcher(r.Stop, r.IncludeStop),
		usage:   Usage{PromptTokens: len(r.Prompt)},
	}, nil
}

// run forwards events until the sequence ends.
func (s *stream) run(ctx context.Context, out chan<- Event) {
	defer close(out)
	defer s.cancel()
	send := func(ev Event) bool {
		select {
		case out <- ev:
			return true
		case <-ctx.Done():
			// The receiver is gone or about to look: leave the last word if it fits.
			select {
			case out <- ev:
			default:
			}
			return false
		}
	}
	for {
		ev, ok := s.seq.Next()
		if !ok {
			return
		}
		switch ev.Kind {
		case engine.KindAdmitted:
			s.usage.CachedTokens = ev.CachedTokens
			send(Event{Kind: EventAdmitted, CachedTokens: ev.CachedTokens})
		case engine.KindProgress:
			send(Event{Kind: EventProgress, Processed: ev.Processed})
		case engine.KindToken:
			text, stopped := s.token(ev)
			send(text)
			if stopped {
				s.cancel()
				send(Event{Kind: EventFinished, Reason: ReasonStop, Usage: s.usage, Timings: s.drain()})
				return
			}
		case engine.KindFinished:
			s.finish(ev, send)
			return
		}
	}
}

// token turns a token into text; stopped says that a stop string was completed.
func (s *stream) token(ev engine.Event) (Event, bool) {
	s.usage.CompletionTokens++
	out := Event{Kind: EventText}
	if ev.Stopped {
		return out, false // the engine's last token: it ends the text, it is no part of it
	}
	out.Tokens = []Token{s.describe(ev.Choice)}
	text, stopped := s.stop.push(s.decoder.Push(ev.Choice.ID))
	out.Text = text
	return out, stopped
}

func (s *stream) describe(c sample.Choice) Token {
	t := Token{ID: c.ID, Bytes: s.e.tokenizer.Bytes(c.ID), Logprob: c.Logprob}
	for _, alt := range c.Top {
		t.Top = append(t.Top, TokenLogprob{ID: alt.ID, Bytes: s.e.tokenizer.Bytes(alt.ID), Logprob: alt.Logprob})
	}
	return t
}

// finish delivers the text that was held back, then the end.
func (s *stream) finish(ev engine.Event, send func(Event) bool) {
	text, stopped := s.stop.push(s.decoder.Flush())
	if !stopped {
		text += s.stop.flush()
	}
	if text != "" {
		send(Event{Kind: EventText, Text: text})
	}
	end := Event{Kind: EventFinished, Usage: s.usage, Timings: timings(ev), Err: ev.Err}
	switch {
	case ev.Reason == engine.ReasonError:
		end.Reason = ReasonError
	case ev.Reason == engine.ReasonCancelled:
		end.Reason = ReasonCancelled
	case ev.Reason == engine.ReasonStop || stopped:
		end.Reason = ReasonStop
	default:
		end.Reason = ReasonLength
	}
	send(end)
}

// drain waits for the cancelled sequence's end: its pages are free by then.
func (s *stream) drain() Timings {
	for {
		ev, ok := s.seq.Next()
		if !ok {
			return Timings{}
		}
		if ev.Kind == engine.KindFinished {
			return timings(ev)
		}
	}
}

func timings(ev engine.Event) Timings {
	return Timings{Queue: ev.Timings.Queue, Prefill: ev.Timings.Prefill, Decode: ev.Timings.Decode}
}
