package engine

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/moaserve/moaserve/runtime/kv"
)

// SessionInfo describes a session: the requests of one tenant that carry the same
// name. What its latest request left in the KV cache is given up after everything
// that belongs to no session.
type SessionInfo struct {
	ID   string
	Plan string // of its latest request
	// Created is when its first request was admitted; Used is when one was last admitted or
	// ended.
	Created, Used time.Time
	Requests      uint64
	Running       int // of which are not finished
	// Tokens and Pages are the length and size of the prefix kept for it; 0 when
	// there is none any more.
	Tokens, Pages int
	PromptTokens  uint64 // of all its requests
	CachedTokens  uint64 // of which came from kept prefixes
}

// sessions is the table of sessions. The engine's goroutine writes it and owns the
// pins; readers take the lock, which is a leaf.
type sessions struct {
	mu    sync.Mutex
	byID  map[sessionID]*session
	used  list.List  // of *session, the latest used first
	ended []leftover // of sessions that EndSession removed

	most int
	idle time.Duration
}

type sessionID struct{ tenant, id string }

type session struct {
	key     sessionID
	info    SessionInfo
	prefix  kv.Key   // the latest; pinned while info.Pages > 0
	earlier []kv.Key // those that it replaced, the latest maxEarlier
	element *list.Element
}

// maxEarlier bounds what is remembered of a session's turns, so that they can be
// forgotten on demand: 8 KiB a session.
const maxEarlier = 256

// leftover is a prefix to be forgotten.
type leftover struct {
	key    kv.Key
	pinned bool
}

func newSessions(o Options) *sessions {
	return &sessions{byID: make(map[sessionID]*session), most: o.MaxSessions, idle: o.SessionIdle}
}

// Sessions returns the sessions of a tenant, the latest used first.
func (e *Engine) Sessions(tenant string) []SessionInfo {
	t := e.sessions
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []SessionInfo
	for key, s := range t.byID {
		if key.tenant == tenant {
			out = append(out, s.info)
		}
	}
	slices.SortFunc(out, func(a, b SessionInfo) int { return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.ID, b.ID)) })
	return out
}

// EndSession forgets a session and what was kept for it. It reports whether there
// was one.
func (e *Engine) EndSession(tenant, id string) bool {
	t := e.sessions
	t.mu.Lock()
	s := t.byID[sessionID{tenant, id}]
	if s != nil {
		// What is not in the cache any more may be on disk.
		for _, key := range s.earlier {
			t.ended = append(t.ended, leftover{key: key})
		}
		if s.prefix != (kv.Key{}) {
			t.ended = append(t.ended, leftover{key: s.prefix, pinned: s.info.Pages > 0})
		}
		t.remove(s)
	}
	t.mu.Unlock()
	e.poke()
	return s != nil
}

// sessionBegins counts a request that was admitted.
func (e *Engine) sessionBegins(s *sequence) {
	if s.req.Session == "" {
		return
	}
	t := e.sessions
	t.mu.Lock()
	x := t.touch(sessionID{s.req.Tenant, s.req.Session})
	x.info.Plan = s.req.Plan.Name
	x.info.Requests++
	x.info.Running++
	x.info.PromptTokens += uint64(len(s.req.Prompt))
	x.info.CachedTokens += uint64(s.cached)
	t.mu.Unlock()
	s.session = x
}

// sessionEnds pins what a finished request left, in the place of what the session
// had pinned before. kept is false when it left nothing.
func (e *Engine) sessionEnds(s *sequence, key kv.Key, kept bool) {
	x := s.session
	if x == nil {
		return
	}
	s.session = nil
	t := e.sessions
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[x.key] != x {
		return // ended or forgotten meanwhile; one of that name may have begun since
	}
	t.touch(x.key)
	x.info.Running = max(0, x.info.Running-1)
	if !kept {
		return
	}
	if n := e.prefixes.Pin(key); n != nil {
		if x.info.Pages > 0 {
			e.prefixes.Unpin(x.prefix)
		}
		if x.prefix != key && x.prefix != (kv.Key{}) {
			x.earlier = append(x.earlier[max(0, len(x.earlier)+1-maxEarlier):], x.prefix)
		}
		x.prefix, x.info.Tokens, x.info.Pages = key, n.Tokens(), n.Pages()
	}
}

// sweepSessions drops what ended sessions kept and unpins what belongs to sessions
// that nobody used for long or that are too many. Of too many it is one of the tenant
// who has most: names are free, and nobody's may push out another's.
func (e *Engine) sweepSessions() {
	t := e.sessions
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.ended {
		if x.pinned && e.prefixes.Unpin(x.key) > 0 || t.holds(x.key) {
			continue // another session's, too
		}
		e.prefixes.Remove(x.key)
		if e.spill != nil {
			e.spill.Remove(x.key)
		}
	}
	t.ended = t.ended[:0]
	for t.used.Len() > 0 {
		x := t.used.Back().Value.(*session)
		if t.used.Len() > t.most {
			x = t.leastUsedOfMost()
		} else if x.info.Running > 0 || time.Since(x.info.Used) < t.idle {
			break
		}
		if x.info.Pages > 0 {
			e.prefixes.Unpin(x.prefix)
		}
		t.remove(x)
	}
}

// sessionEvicted tells the sessions that a prefix which one of them pinned is gone.
func (e *Engine) sessionEvicted(key kv.Key) {
	t := e.sessions
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.byID {
		if x.info.Pages > 0 && x.prefix == key {
			x.info.Tokens, x.info.Pages = 0, 0
		}
	}
}

// leastUsedOfMost returns the least recently used session of the tenant with the most,
// of tenants with equally many the one whose is used less recently. There is one; t.mu is
// held.
func (t *sessions) leastUsedOfMost() *session {
	counts := make(map[string]int)
	for key := range t.byID {
		counts[key.tenant]++
	}
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	e := t.used.Back()
	for counts[e.Value.(*session).key.tenant] < most {
		e = e.Prev()
	}
	return e.Value.(*session)
}

// holds reports whether a prefix is some session's latest. t.mu is held.
func (t *sessions) holds(key kv.Key) bool {
	for _, x := range t.byID {
		if x.prefix == key {
			return true
		}
	}
	return false
}

// count returns the number of sessions.
func (t *sessions) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// touch returns a session, made if need be, as the latest used. t.mu is held.
func (t *sessions) touch(key sessionID) *session {
	now := time.Now()
	x := t.byID[key]
	if x == nil {
		x = &session{key: key, info: SessionInfo{ID: key.id, Created: now}}
		x.element = t.used.PushFront(x)
		t.byID[key] = x
	}
	t.used.MoveToFront(x.element)
	x.info.Used = now
	return x
}

// remove forgets a session. t.mu is held.
func (t *sessions) remove(x *session) {
	t.used.Remove(x.element)
	delete(t.byID, x.key)
}
