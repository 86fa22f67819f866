package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/moaserve/moaserve/runtime"
)

// job is a validated request for completions: what to generate and how to say it.
type job struct {
	envelope
	params params
	info   ModelInfo
	// requests are the sequences, one a choice; choice i belongs to prompt i / n.
	requests []runtime.Request
	// echoes are the texts of the prompts when the answer repeats them, else nil.
	echoes []string
	// progressComments sends progress as comments instead of chunks.
	progressComments bool
}

// echo returns the text that precedes the answer of a choice.
func (j *job) echo(index int) string {
	if j.echoes == nil {
		return ""
	}
	return j.echoes[index/j.params.n]
}

// logprobs returns a gatherer for a choice, nil when none is asked for.
func (j *job) logprobs() *logprobs {
	if !j.params.sampling.Logprobs {
		return nil
	}
	return newLogprobs(j.shape.chat, 0)
}

// choiceEvent is an event of one of a job's sequences.
type choiceEvent struct {
	index int
	runtime.Event
}

// generation is a job under way: its sequences, their events, its client. One
// goroutine at a time uses it: the handler's, then that which writes the stream
// (the same one, in fasthttp).
type generation struct {
	s      *Server
	id     string // the request's, for the log
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *peerWatch
	ticket *ticket
	meters []meter // one a sequence

	n          int // choices a prompt
	unfinished int // sequences
	usage      usage
	ended      string // by what: the latest sequence that finished
	over       bool
	// Of a single sequence the channel is read directly; several are merged.
	single <-chan runtime.Event
	merged <-chan choiceEvent
}

// errStreamEnded is the engine's breach of Generate's contract.
var errStreamEnded = errors.New("the engine ended a request without a last event")

// open begins a generation and takes t over. The caller must call finish.
func (s *Server) open(ctx *fasthttp.RequestCtx, t *ticket) (*generation, *apiError) {
	if e := s.enter(); e != nil {
		return nil, e
	}
	g := &generation{s: s, ticket: t, id: string(ctx.Response.Header.Peek(headerRequestID))}
	g.ctx, g.cancel = context.WithCancelCause(s.base)
	g.watch = &peerWatch{}
	if c, ok := ctx.Conn().(*conn); ok {
		g.watch = s.peers.watch(c.rawConn(), g.cancel)
	}
	return g, nil
}

// submit hands a job's sequences to the engine: all of them or, with an error,
// none that finish would not cancel.
func (g *generation) submit(j *job) error {
	now := time.Now()
	model := g.s.metrics.forModel(j.info.ID)
	channels := make([]<-chan runtime.Event, len(j.requests))
	for i := range j.requests {
		ch, err := g.s.engine.Generate(g.ctx, j.requests[i])
		if err != nil {
			return err
		}
		channels[i] = ch
		g.meters = append(g.meters, meter{modelMetrics: model, prompt: len(j.requests[i].Prompt), start: now, last: now})
	}
	g.n, g.unfinished = j.params.n, len(channels)
	g.s.metrics.paramN.WithLabelValues(j.info.ID).Observe(float64(j.params.n))
	if j.params.maxTokens > 0 {
		g.s.metrics.paramMaxTokens.WithLabelValues(j.info.ID).Observe(float64(j.params.maxTokens))
	}
	if len(channels) == 1 {
		g.single = channels[0]
		return nil
	}
	merged := make(chan choiceEvent, len(channels))
	for i, ch := range channels {
		go forward(g.ctx, i, ch, merged)
	}
	g.merged = merged
	return nil
}

// forward sends the events of one sequence to the merged channel.
func forward(ctx context.Context, index int, from <-chan runtime.Event, to chan<- choiceEvent) {
	for {
		var ev runtime.Event
		var ok bool
		select {
		case ev, ok = <-from:
		case <-ctx.Done():
			return
		}
		if !ok {
			ev = runtime.Event{Kind: runtime.EventFinished, Reason: runtime.ReasonError, Err: errStreamEnded}
		}
		select {
		case to <- choiceEvent{index, ev}:
		case <-ctx.Done():
			return
		}
		if ev.Kind == runtime.EventFinished {
			return
		}
	}
}

// wake says why wait returned.
type wake uint8

const (
	wakeEvent      wake = iota // an event
	wakeSilence                // the timer
	wakeHalfClosed             // the client sends no more
	wakeCancelled              // the client has gone or the server stops
)

// wait waits for the next event. A nil timer or halfClosed is not waited for.
func (g *generation) wait(ev *choiceEvent, timer <-chan time.Time, halfClosed <-chan struct{}) wake {
	select {
	case e, ok := <-g.single:
		g.received(ev, e, ok)
	case e := <-g.merged:
		*ev = e
		g.note(ev)
	case <-timer:
		return wakeSilence
	case <-halfClosed:
		return wakeHalfClosed
	case <-g.ctx.Done():
		return wakeCancelled
	}
	return wakeEvent
}

// poll returns an event that is there already.
func (g *generation) poll(ev *choiceEvent) bool {
	select {
	case e, ok := <-g.single:
		g.received(ev, e, ok)
	case e := <-g.merged:
		*ev = e
		g.note(ev)
	default:
		return false
	}
	return true
}

func (g *generation) received(ev *choiceEvent, e runtime.Event, ok bool) {
	if !ok {
		e = runtime.Event{Kind: runtime.EventFinished, Reason: runtime.ReasonError, Err: errStreamEnded}
	}
	if e.Kind == runtime.EventFinished {
		g.single = nil
	}
	ev.index, ev.Event = 0, e
	g.note(ev)
}

// note keeps the books.
func (g *generation) note(ev *choiceEvent) {
	g.meters[ev.index].event(&ev.Event, time.Now())
	switch ev.Kind {
	case runtime.EventAdmitted:
		g.ticket.admitted()
	case runtime.EventFinished:
		g.unfinished--
		g.ended = endedBy(ev.Reason)
		g.usage.completion += ev.Usage.CompletionTokens
		if ev.index%g.n == 0 {
			g.usage.prompt += ev.Usage.PromptTokens
			g.usage.cached += ev.Usage.CachedTokens
		}
	}
}

// failure returns the error of a sequence that ended without an answer.
func (g *generation) failure(ev *choiceEvent) *apiError {
	switch ev.Reason {
	case runtime.ReasonStop, runtime.ReasonLength:
		return nil
	case runtime.ReasonCancelled:
		// Not by us, or g.ctx would have been seen first: the engine stops.
		if g.ctx.Err() == nil {
			return shutdownError()
		}
		return g.cancelled()
	}
	e, internal := asAPIError(ev.Err)
	if internal {
		g.s.log.Error("the engine failed", "request", g.id, "error", ev.Err)
	}
	return e
}

// cancelled returns why the context ended.
func (g *generation) cancelled() *apiError {
	e, _ := asAPIError(context.Cause(g.ctx))
	return e
}

// finish ends what still runs and gives everything back. It may be called more
// than once.
func (g *generation) finish() {
	if g.over {
		return
	}
	g.over = true
	g.cancel(errDone)
	g.watch.stop()
	g.ticket.leave()
	now := time.Now()
	for i := range g.meters {
		g.meters[i].end(reasonAbort, now)
	}
	g.log(now)
	g.s.leave()
}

// log writes the line about a generation that ended: who asked for how much, how long it
// took, why it ended.
func (g *generation) log(now time.Time) {
	if len(g.meters) == 0 {
		return // it was refused: the line about the request says so
	}
	m, ended := &g.meters[0], g.ended
	if g.unfinished > 0 {
		ended = reasonAbort
	}
	attrs := []any{
		"request", g.id, "tenant", g.ticket.tenant, "model", m.model, "choices", len(g.meters), "ended", ended,
		"prompt_tokens", g.usage.prompt, "cached_tokens", g.usage.cached, "completion_tokens", g.usage.completion,
		"took", now.Sub(m.start).Round(time.Millisecond).String(),
	}
	if !m.first.IsZero() {
		attrs = append(attrs, "first_token_after", m.first.Sub(m.start).Round(time.Millisecond).String())
	}
	g.s.log.Info("generation", attrs...)
}

// collect waits for all answers and returns the response. A client that closes
// its sending side is taken to have left, as net/http takes it: there is no way
// to ask it before the answer.
func (g *generation) collect(j *job) ([]byte, *apiError) {
	choices := make([]choice, len(j.requests))
	for i := range choices {
		choices[i].text = append(choices[i].text, j.echo(i)...)
		choices[i].logprobs = j.logprobs()
	}
	var ev choiceEvent
	for g.unfinished > 0 {
		switch g.wait(&ev, nil, g.watch.halfClosed()) {
		case wakeHalfClosed:
			g.cancel(errClientGone)
			return nil, newError(kindClientClosed)
		case wakeCancelled:
			return nil, g.cancelled()
		}
		c := &choices[ev.index]
		switch ev.Kind {
		case runtime.EventText:
			c.text = append(c.text, ev.Text...)
			if c.logprobs != nil {
				for i := range ev.Tokens {
					c.logprobs.add(&ev.Tokens[i])
				}
			}
		case runtime.EventFinished:
			if e := g.failure(&ev); e != nil {
				return nil, e
			}
			c.reason = ev.Reason
		}
	}
	return j.appendResponse(nil, choices, &g.usage), nil
}
