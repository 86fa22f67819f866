package engine

import (
	"sync"
	"time"
)

// gate is where requests enter: it bounds the queue and hands over to the
// engine's goroutine. It is all that Submit shares with it.
type gate struct {
	inbox chan *sequence // has room for every request that may wait

	mu       sync.Mutex // a leaf: nothing is called while it is held
	closed   bool
	arrivals uint64
	requests int // waiting for admission
	tokens   int // in the prompts of those
	refused  uint64

	maxRequests, maxTokens int

	// The prompt tokens computed per second, for the estimate of the wait: both
	// sums forget.
	prefilled, seconds float64
}

func newGate(o Options) *gate {
	return &gate{
		inbox:       make(chan *sequence, o.MaxQueuedRequests),
		maxRequests: o.MaxQueuedRequests, maxTokens: o.MaxQueuedTokens,
	}
}

// enter queues a request or refuses it. It does not wait.
func (g *gate) enter(s *sequence) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	// A single prompt is bounded by the context; alone it may always wait.
	prompt := len(s.req.Prompt)
	if g.requests >= g.maxRequests || g.requests > 0 && g.tokens+prompt > g.maxTokens {
		g.refused++
		return &QueueFullError{
			Requests: g.requests, MaxRequests: g.maxRequests,
			Tokens: g.tokens, MaxTokens: g.maxTokens, Wait: g.wait(),
		}
	}
	g.requests++
	g.tokens += prompt
	g.arrivals++
	s.arrival = g.arrivals
	g.inbox <- s
	return nil
}

// leave says that a request stopped waiting.
func (g *gate) leave(s *sequence) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests--
	g.tokens -= len(s.req.Prompt)
}

// close refuses all further requests.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// isClosed reports whether no further request can come. What is in the inbox by
// then is the last of it.
func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// waiting returns the figures of the queue.
func (g *gate) waiting() (requests, tokens int, refused uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests, g.tokens, g.refused
}

// observe counts the prompt tokens of a step for the estimate of the wait.
func (g *gate) observe(prefilled int, took time.Duration) {
	// A hundred steps are the memory: seconds on a CPU, a second on a GPU.
	const keep = 0.99
	g.mu.Lock()
	defer g.mu.Unlock()
	g.prefilled = keep*g.prefilled + float64(prefilled)
	g.seconds = keep*g.seconds + took.Seconds()
}

// wait estimates how long the queue takes to empty. g.mu is held.
func (g *gate) wait() time.Duration {
	// An hour is as good as "not soon" and keeps the product in range.
	const least, most = time.Second, time.Hour
	if g.prefilled <= 0 {
		return least
	}
	seconds := float64(g.tokens) * g.seconds / g.prefilled
	return max(least, time.Duration(min(seconds, most.Seconds())*float64(time.Second)))
}
