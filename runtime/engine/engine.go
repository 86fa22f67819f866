package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/kv/spill"
	"github.com/moaserve/moaserve/runtime/model"
)

// Engine runs requests on a device. Its methods are safe for concurrent use.
//
// One goroutine owns the queue, the running sequences, the pages and the device.
// Submit reaches it over a channel; a cancelled context is seen between two
// steps. Idle, it sleeps.
type Engine struct {
	dev   pipeline
	pool  backend.Pool
	model model.Config
	o     Options
	gate  *gate

	wake chan struct{} // holds one: something changed, look again
	quit chan struct{} // closed by Close
	// questions are answered by the goroutine, between steps.
	questions chan func()
	done      chan struct{} // closed when the goroutine has ended
	lost      chan struct{} // closed when the device is beyond use

	closing sync.Once
	closed  error // what Close returns
	stats   atomic.Pointer[Stats]
	sick    atomic.Pointer[sickness]

	// What follows belongs to the engine's goroutine.
	queue     *queue
	running   []*sequence // by arrival, oldest first
	pages     *kv.Pool
	prefixes  *kv.Prefixes
	committed int   // sum of the running sequences' commit; at most pages.Pages()
	slots     []int // free slots
	pace      *pace
	sessions  *sessions    // its table may be read by others
	spill     *spill.Store // nil when prefixes are not kept on disk
	restoring bool         // one is being read
	steps     [2]step      // in turn: one is built while the other computes
	flight    *step        // begun and not answered; nil for none
	answered  time.Time    // when the latest step was
	idle      bool         // there was nothing to do
	turn      bool         // alternates: see schedulePrefills
	failures  int          // steps that failed in a row
	count     Stats
}

// New starts an engine on a loaded device and allocates its KV pages. Close the
// engine before the device: it does not own the device.
func New(dev backend.Device, m *model.Model, o Options) (*Engine, error) {
	o, err := o.complete(m.Context, dev.PageBytes())
	if err != nil {
		return nil, err
	}
	pool, err := dev.NewPool(o.Pages)
	if err != nil {
		return nil, fmt.Errorf("allocating %d KV pages: %w", o.Pages, err)
	}
	if w, ok := dev.(backend.Warmer); ok && o.Warm {
		if err := w.Warm(); err != nil {
			return nil, errors.Join(fmt.Errorf("warming the device up: %w", err), pool.Close())
		}
	}
	store, err := openSpill(pool, dev.PageBytes(), o)
	if err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	e := &Engine{
		dev: inTurn(dev), pool: pool, model: m.Config, o: o, gate: newGate(o), pace: newPace(o, dev), sessions: newSessions(o),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), questions: make(chan func()), lost: make(chan struct{}),
		queue: newQueue(), pages: kv.NewPool(o.Pages),
	}
	e.spill = store
	e.prefixes = kv.NewPrefixes(e.pages)
	e.prefixes.Evicted = func(x kv.Kept) {
		if x.Pinned {
			e.sessionEvicted(x.Key)
		}
		e.spillEvicted(x)
	}
	for slot := o.MaxSequences - 1; slot >= 0; slot-- {
		e.slots = append(e.slots, slot)
	}
	e.publish()
	go e.run()
	return e, nil
}

// Submit queues a request and returns its stream. It does not wait for the
// device. A request that cannot run is refused here: with [ErrInvalidRequest],
// [*ContextLengthError], [*NeverFitsError], [*QueueFullError] or [ErrClosed].
//
// Cancelling ctx ends the request wherever it is, in the queue, between two
// chunks of its prompt or between two tokens, and frees its pages before the next
// step is built. The stream then ends with ReasonCancelled.
func (e *Engine) Submit(ctx context.Context, req Request) (*Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := e.newSequence(ctx, req)
	if err != nil {
		return nil, err
	}
	s.unwatch = context.AfterFunc(ctx, e.poke)
	if err := e.gate.enter(s); err != nil {
		s.unwatch()
		return nil, err
	}
	return s.stream, nil
}

// Stats returns the state when the latest step began or ended.
func (e *Engine) Stats() Stats {
	s := *e.stats.Load()
	requests, tokens, refused := e.gate.waiting()
	s.Waiting += requests
	s.QueuedTokens, s.Refused = tokens, refused
	return s
}

// Lost returns a channel that is closed when the device is beyond use
// ([backend.ErrDeviceLost]). By then all requests have ended with that error, new ones
// are refused, and Healthy returns it for good: only a new process helps.
func (e *Engine) Lost() <-chan struct{} { return e.lost }

// Healthy returns nil while the device works and the last error once several
// steps in a row have failed or the device is lost. In the first case requests are
// still tried: a step that succeeds makes the engine healthy again, and so do 15 seconds
// in which none failed.
func (e *Engine) Healthy() error {
	if s := e.sick.Load(); s != nil && (s.lost || time.Since(s.at) < sickFor) {
		return s.err
	}
	return nil
}

// Drain refuses new requests and waits until all that were accepted have ended,
// those in the queue included. When ctx ends first, Drain returns its error and
// the rest runs on; Close ends it.
func (e *Engine) Drain(ctx context.Context) error {
	e.gate.close()
	e.poke()
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close refuses new requests, ends all others with ErrClosed after the step that
// runs, and frees the KV pages of the device.
func (e *Engine) Close() error {
	e.closing.Do(func() {
		e.gate.close()
		close(e.quit)
		<-e.done
		e.closed = e.pool.Close()
		if e.spill != nil {
			e.closed = errors.Join(e.closed, e.spill.Close())
		}
	})
	return e.closed
}

// poke makes the engine's goroutine look again.
func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run is the engine's goroutine.
func (e *Engine) run() {
	defer close(e.done)
	for e.proceed() {
		e.receive()
		e.reap()
		e.sweepSessions()
		e.admit()
		e.compute()
		e.publish()
	}
	e.settle()
	e.endAll(ErrClosed)
	e.sweepSessions() // what was ended just now is not kept
	e.spillAll()
	e.publish()
}

// endAll ends every sequence that is queued or running with an error.
func (e *Engine) endAll(err error) {
	e.receive()
	for _, s := range e.queue.remove(func(*sequence) bool { return true }) {
		e.finish(s, ReasonError, err)
	}
	for len(e.running) > 0 {
		e.finish(e.running[0], ReasonError, err)
	}
}

// proceed waits until there may be something to do. It returns false when the
// engine is to end.
func (e *Engine) proceed() bool {
	select {
	case <-e.quit:
		return false
	default:
	}
	if !e.idle {
		return e.linger()
	}
	if e.gate.isClosed() && len(e.gate.inbox) == 0 && len(e.running) == 0 && e.queue.len() == 0 {
		return false
	}
	return e.wait(nil)
}

// wait sleeps until something happens or the time is up; nil is no time. It returns
// false when the engine is to end.
func (e *Engine) wait(up <-chan time.Time) bool {
	select {
	case <-up:
	case s := <-e.gate.inbox:
		e.queue.push(s)
	case answer := <-e.questions:
		answer()
	case <-e.wake:
	case <-e.quit:
		return false
	}
	return true
}

// receive moves new requests to the queue and answers questions.
func (e *Engine) receive() {
	for {
		select {
		case s := <-e.gate.inbox:
			e.queue.push(s)
		case answer := <-e.questions:
			answer()
		default:
			return
		}
	}
}

// reap ends the sequences whose context was cancelled.
func (e *Engine) reap() {
	cancelled := func(s *sequence) bool { return s.ctx.Err() != nil }
	for _, s := range e.queue.remove(cancelled) {
		e.finish(s, ReasonCancelled, nil)
	}
	for i := 0; i < len(e.running); {
		if s := e.running[i]; cancelled(s) {
			e.finish(s, ReasonCancelled, nil)
			continue // finish moved the next one to i
		}
		i++
	}
}

// finish ends a sequence that is running or was taken from the queue.
func (e *Engine) finish(s *sequence, reason Reason, err error) {
	s.unwatch()
	if s.slot != noSlot {
		var key kv.Key
		kept := false
		if reason != ReasonError {
			if key, kept = e.keep(s); kept { // a follow-up continues here
				e.prefixes.Last(key)
				s.left = key
			}
		}
		e.sessionEnds(s, key, kept)
		e.withdraw(s)
	} else if s.preempted == 0 {
		e.gate.leave(s)
	}
	t := s.timings(time.Now())
	e.count.Finished++
	e.o.Observer.ObserveFinish(RequestReport{
		Tenant: s.req.Tenant, Reason: reason, PromptTokens: len(s.req.Prompt), CachedTokens: s.cached,
		GeneratedTokens: s.delivered(), MaxTokens: s.req.MaxTokens, Preemptions: s.preempted, Timings: t,
	})
	// The event comes last: who has seen it finds the pages free.
	e.publish()
	s.stream.push(Event{Kind: KindFinished, Reason: reason, Err: err, Timings: t})
}

// timings cuts the life of a sequence that ends now into its phases.
func (s *sequence) timings(now time.Time) Timings {
	switch {
	case s.admitted.IsZero():
		return Timings{Queue: now.Sub(s.submitted)}
	case s.firstToken.IsZero():
		return Timings{Queue: s.admitted.Sub(s.submitted), Prefill: now.Sub(s.admitted)}
	}
	return Timings{
		Queue: s.admitted.Sub(s.submitted), Prefill: s.firstToken.Sub(s.admitted), Decode: s.lastToken.Sub(s.firstToken),
	}
}

// publish makes the figures visible to Stats.
func (e *Engine) publish() {
	e.count.Running = len(e.running)
	e.count.Waiting = len(e.queue.preempted) // the gate counts the others
	e.count.Pages, e.count.UsedPages = e.pages.Pages(), e.pages.Used()
	e.count.CommittedPages, e.count.CachedPages = e.committed, e.pages.Cached()
	prefixes := e.prefixes.Stats()
	e.count.PinnedPrefixes, e.count.Sessions = e.prefixes.Pinned(), e.sessions.count()
	e.count.Prefixes, e.count.PrefixHits, e.count.PrefixMisses, e.count.PrefixEvictions = e.prefixes.Len(), prefixes.Hits, prefixes.Misses, prefixes.Evictions
	if e.spill != nil {
		e.count.Spill = e.spill.Stats()
	}
	s := e.count
	e.stats.Store(&s)
}
