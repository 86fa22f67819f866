package gateway

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"github.com/moaserve/moaserve/runtime"
)

// sseStream is the body of a streamed response. fasthttp pulls it: the goroutine
// that serves the connection calls Read, writes what it got as one HTTP chunk and
// flushes it. So there is no second goroutine and no pipe between events and the
// socket, a slow client holds up nobody else, and Close is called whatever
// happens.
type sseStream struct {
	g          *generation
	j          *job
	chunks     *chunks
	logprobs   []*logprobs // one a choice, nil when not asked for
	cached     []int       // by choice, for progress
	admitted   time.Time
	timer      *time.Timer
	halfClosed <-chan struct{} // nil once probed

	buf   []byte
	off   int   // of buf, the part already read
	ended bool  // buf is the last
	err   error // what ends the stream instead of io.EOF
}

var _ io.ReadCloser = (*sseStream)(nil)

// batchBytes ends a batch of events that are there already: about what one flush
// moves without blocking.
const batchBytes = 16 << 10

// errCut makes fasthttp drop the connection instead of ending the body properly.
var errCut = errors.New("stream cut: the client has gone")

// stream answers with server-sent events. Until the engine has admitted the
// request an error still gets its own status; headers leave earlier only when
// Timeouts.Ping has passed, or to find out whether a half-closed client lives.
func (g *generation) stream(ctx *fasthttp.RequestCtx, j *job) *apiError {
	st := &sseStream{
		g: g, j: j,
		chunks:     newChunks(&j.envelope, j.params.includeUsage),
		cached:     make([]int, len(j.requests)),
		timer:      time.NewTimer(g.s.opts.Timeouts.Ping),
		halfClosed: g.watch.halfClosed(),
	}
	if j.params.sampling.Logprobs {
		st.logprobs = make([]*logprobs, len(j.requests))
		for i := range st.logprobs {
			st.logprobs[i] = newLogprobs(j.shape.chat, utf8.RuneCountInString(j.echo(i)))
		}
	}
	var ev choiceEvent
	switch g.wait(&ev, st.timer.C, st.halfClosed) {
	case wakeEvent:
		if ev.Kind == runtime.EventFinished {
			if e := g.failure(&ev); e != nil {
				st.timer.Stop()
				return e
			}
		}
		st.begin()
		st.event(&ev)
	case wakeSilence:
		st.begin()
		st.buf = append(st.buf, ssePing...)
	case wakeHalfClosed:
		st.begin()
		st.probe()
	case wakeCancelled:
		st.timer.Stop()
		return g.cancelled()
	}

	h := &ctx.Response.Header
	h.SetContentType("text/event-stream")
	h.Set(fasthttp.HeaderCacheControl, "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx would collect the events
	ctx.Response.ImmediateHeaderFlush = true
	ctx.Response.SetBodyStream(st, -1)
	return nil
}

// Read returns the next events. It blocks until there is one or silence has
// lasted too long.
func (st *sseStream) Read(p []byte) (n int, err error) {
	defer func() {
		// fasthttp would survive the panic too, but the client would not learn
		// what happened.
		if r := recover(); r != nil {
			st.g.s.log.Error("panic in a stream", "request", st.g.id, "panic", r, "stack", string(debug.Stack()))
			st.buf, st.off = st.buf[:0], 0
			st.fail(newError(kindInternal))
			n = copy(p, st.buf)
			st.off, err = n, nil
		}
	}()
	for st.off == len(st.buf) {
		if st.ended {
			if st.err != nil {
				return 0, st.err
			}
			return 0, io.EOF
		}
		st.buf, st.off = st.buf[:0], 0
		st.fill()
	}
	n = copy(p, st.buf[st.off:])
	st.off += n
	return n, nil
}

// Close ends the generation. fasthttp calls it when the body is written or when
// writing it failed.
func (st *sseStream) Close() error {
	st.timer.Stop()
	if !st.ended || st.off < len(st.buf) {
		st.g.cancel(errClientGone) // a write failed
	}
	st.g.finish()
	return nil
}

// begin writes what precedes the first event.
func (st *sseStream) begin() {
	for i := range st.j.requests {
		switch {
		case st.j.shape.chat:
			st.buf = st.chunks.role(st.buf, i)
		case st.j.echoes != nil:
			st.buf = st.chunks.text(st.buf, i, st.j.echo(i), nil)
		}
	}
}

// fill waits for one event and takes those that came with it.
func (st *sseStream) fill() {
	st.timer.Reset(st.g.s.opts.Timeouts.Ping)
	var ev choiceEvent
	switch st.g.wait(&ev, st.timer.C, st.halfClosed) {
	case wakeSilence:
		st.buf = append(st.buf, ssePing...)
		return
	case wakeHalfClosed:
		st.probe()
		return
	case wakeCancelled:
		if errors.Is(context.Cause(st.g.ctx), errClientGone) {
			st.ended, st.err = true, errCut
			return
		}
		st.fail(st.g.cancelled())
		return
	}
	st.event(&ev)
	for !st.ended && len(st.buf) < batchBytes && st.g.poll(&ev) {
		st.event(&ev)
	}
}

// probe finds out whether a client that sends no more still reads: to one that
// has gone, the comment brings back a reset, which the watch reports.
func (st *sseStream) probe() {
	st.halfClosed = nil
	st.buf = append(st.buf, ssePing...)
}

// fail ends the stream with an error frame.
func (st *sseStream) fail(e *apiError) {
	st.buf = appendErrorFrame(st.buf, e)
	st.ended = true
}

// event writes one event.
func (st *sseStream) event(ev *choiceEvent) {
	switch ev.Kind {
	case runtime.EventAdmitted:
		st.cached[ev.index] = ev.CachedTokens
		if st.admitted.IsZero() {
			st.admitted = time.Now()
		}
		st.progress(ev.index, ev.CachedTokens)
	case runtime.EventProgress:
		st.progress(ev.index, ev.Processed)
	case runtime.EventText:
		st.text(ev)
	case runtime.EventFinished:
		if e := st.g.failure(ev); e != nil {
			st.fail(e)
			return
		}
		st.buf = st.chunks.finish(st.buf, ev.index, ev.Reason)
		if st.g.unfinished > 0 {
			return
		}
		if st.j.params.includeUsage {
			st.buf = st.chunks.usage(st.buf, &st.g.usage)
		}
		st.buf = append(st.buf, sseDone...)
		st.ended = true
	}
}

// text writes a piece of an answer. Tokens without text (a part of a character,
// the beginning of what may be a stop string) only matter with logprobs.
func (st *sseStream) text(ev *choiceEvent) {
	var lp *logprobs
	if st.logprobs != nil {
		lp = st.logprobs[ev.index]
		lp.reset()
		for i := range ev.Tokens {
			lp.add(&ev.Tokens[i])
		}
	}
	if ev.Text == "" && (lp == nil || len(ev.Tokens) == 0) {
		return
	}
	st.buf = st.chunks.text(st.buf, ev.index, ev.Text, lp)
}

// progress reports on the prefill when the client wants to know.
func (st *sseStream) progress(index, processed int) {
	if !st.j.params.progress {
		return
	}
	p := progress{
		total:     len(st.j.requests[index].Prompt),
		cached:    st.cached[index],
		processed: processed,
		millis:    time.Since(st.admitted).Milliseconds(),
	}
	if st.j.progressComments {
		st.buf = append(st.buf, ": prompt_progress "...)
		st.buf = p.appendJSON(st.buf)
		st.buf = append(st.buf, "\n\n"...)
		return
	}
	st.buf = st.chunks.progressChunk(st.buf, index, &p)
}
