package gateway

import (
	"math"
	"sync"
	"time"
)

// admission bounds what may wait for the engine, in sequences and in prompt
// tokens, and what each tenant may have in flight. It refuses before a prompt is
// tokenised, on an estimate, so that a flood costs next to nothing.
type admission struct {
	limits Limits

	mu      sync.Mutex
	waiting int // sequences that the engine has not admitted
	tokens  int // their prompt tokens
	tenants map[string]int
	// gap is the smoothed time between two admissions: the queue's pace.
	gap  time.Duration
	last time.Time
}

// bytesPerToken is what the estimate before tokenising assumes: English text in
// a vocabulary of 32k to 128k has 4 to 4.5 bytes a token, code and other
// languages fewer. The exact number replaces it a moment later.
const bytesPerToken = 4

func newAdmission(l Limits) *admission {
	return &admission{limits: l, tenants: make(map[string]int)}
}

// ticket is a request's place. Its methods are called by one goroutine at a time.
type ticket struct {
	a      *admission
	tenant string
	keyed  bool // the tenant limit applies
	seqs   int  // sequences that wait
	tokens int  // prompt tokens of each
	open   bool
}

// enter asks for a place for so many sequences with a body of so many bytes. A
// request that the engine does not run has none: it only counts among its
// tenant's requests in flight.
func (a *admission) enter(tenant string, keyed bool, seqs, bodyBytes int) (*ticket, *apiError) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if keyed && a.tenants[tenant] >= a.limits.TenantRequests {
		e := newError(kindRateLimit)
		e.retryAfter = a.etaLocked()
		return nil, e
	}
	t := &ticket{a: a, tenant: tenant, keyed: keyed, open: true}
	if seqs > 0 {
		if e := t.growLocked(seqs, bodyBytes/bytesPerToken); e != nil {
			return nil, e
		}
	}
	a.tenants[tenant]++
	return t, nil
}

// resize replaces the estimate by the real number of sequences and of prompt
// tokens a sequence. On failure the ticket keeps its old size.
func (t *ticket) resize(seqs, tokens int) *apiError {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	return t.growLocked(seqs, tokens)
}

func (t *ticket) growLocked(seqs, tokens int) *apiError {
	a := t.a
	waiting := a.waiting - t.seqs + seqs
	total := a.tokens - t.seqs*t.tokens + seqs*tokens
	// An idle queue takes any request: the bounds are about what others would
	// have to wait for, and a request above them would otherwise never get in.
	alone := waiting == seqs
	if !alone && (waiting > a.limits.QueuedRequests || total > a.limits.QueuedTokens) {
		e := newError(kindQueueFull)
		e.retryAfter = a.etaLocked()
		return e
	}
	a.waiting, a.tokens = waiting, total
	t.seqs, t.tokens = seqs, tokens
	return nil
}

// admitted notes that the engine took one of the ticket's sequences.
func (t *ticket) admitted() {
	a := t.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.seqs == 0 {
		return
	}
	t.leaveLocked(1)
	now := time.Now()
	if !a.last.IsZero() {
		// Idle time says nothing about the pace: only gaps while others waited
		// count, and a weight of 1/8 forgets a burst after some ten admissions.
		if a.waiting > 0 || a.gap > now.Sub(a.last) {
			a.gap += (now.Sub(a.last) - a.gap) / 8
		}
	}
	a.last = now
}

func (t *ticket) leaveLocked(seqs int) {
	t.a.waiting -= seqs
	t.a.tokens -= seqs * t.tokens
	t.seqs -= seqs
}

// leave gives the place back. It may be called more than once.
func (t *ticket) leave() {
	if t == nil || !t.open {
		return
	}
	t.open = false
	a := t.a
	a.mu.Lock()
	defer a.mu.Unlock()
	t.leaveLocked(t.seqs)
	if a.tenants[t.tenant]--; a.tenants[t.tenant] == 0 {
		delete(a.tenants, t.tenant)
	}
}

// etaLocked estimates when the present queue will have been admitted.
func (a *admission) etaLocked() time.Duration {
	eta := time.Duration(float64(a.gap) * float64(max(a.waiting, 1)))
	seconds := math.Ceil(eta.Seconds())
	return min(max(time.Duration(seconds)*time.Second, retryDefault), retryMax)
}
