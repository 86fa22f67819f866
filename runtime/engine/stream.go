package engine

import "sync"

// Stream delivers the events of one sequence, in order. It buffers: the engine
// never waits for a reader. What it holds is bounded by the tokens that the
// sequence may generate, because Progress events that nobody read are merged into
// one. A reader who gives up cancels the request's context.
//
// Next may be called by one goroutine at a time.
type Stream struct {
	mu     sync.Mutex // a leaf: nothing is called while it is held
	filled sync.Cond
	events []Event
	ended  bool   // KindFinished was pushed
	taken  func() // called, without the lock, when logits were read
}

func newStream(taken func()) *Stream {
	s := &Stream{taken: taken}
	s.filled.L = &s.mu
	return s
}

// Next waits for the next event. It returns false after KindFinished was
// delivered. Every stream ends: with the answer, with an error, or soon after the
// request's context is cancelled.
func (s *Stream) Next() (Event, bool) {
	s.mu.Lock()
	for len(s.events) == 0 && !s.ended {
		s.filled.Wait()
	}
	if len(s.events) == 0 {
		s.mu.Unlock()
		return Event{}, false
	}
	e := s.events[0]
	s.events[0] = Event{}
	s.events = s.events[1:]
	s.mu.Unlock()
	if e.Logits != nil {
		s.taken()
	}
	return e, true
}

// push appends an event.
func (s *Stream) push(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.events); n > 0 && e.Kind == KindProgress && s.events[n-1].Kind == KindProgress {
		last := &s.events[n-1]
		last.Processed = e.Processed
		last.Logits = append(last.Logits, e.Logits...)
		return
	}
	s.events = append(s.events, e)
	s.ended = s.ended || e.Kind == KindFinished
	s.filled.Signal()
}

// holdsLogits reports whether logits wait for the reader. They are large: no
// more are computed until these were taken.
func (s *Stream) holdsLogits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.events {
		if s.events[i].Logits != nil {
			return true
		}
	}
	return false
}
