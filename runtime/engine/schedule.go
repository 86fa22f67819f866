package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/moaserve/moaserve/runtime/plan"
)

// admit moves requests from the queue to the running sequences as long as there
// are a slot and, uncommitted, the pages that they reserve.
//
// The sum of what the running sequences reserved never exceeds the pool, and no
// sequence holds more than it reserved. So the pages that a sequence reserved are
// there when it needs them.
func (e *Engine) admit() {
	chunk, pages := e.o.chunkTokens(), e.pages.Pages()
	fits := func(s *sequence) admission {
		switch {
		case e.committed+s.reservation(chunk, pages) > pages:
			return lacksPages
		case e.awaits(s) || e.restores(s):
			return awaitsPrefix
		}
		return ready
	}
	for len(e.slots) > 0 {
		s := e.queue.next(fits)
		if s == nil {
			return
		}
		s.slot = e.slots[len(e.slots)-1]
		e.slots = e.slots[:len(e.slots)-1]
		e.begin(s)
		e.recommit(s, max(s.reservation(chunk, pages), s.kv.Pages()))
		i, _ := slices.BinarySearchFunc(e.running, s, byArrival)
		e.running = slices.Insert(e.running, i, s)
		if s.preempted == 0 {
			e.gate.leave(s)
			s.admitted = time.Now()
			e.count.CachedTokens += uint64(s.cached)
			s.processed = s.cached
			e.sessionBegins(s)
			s.stream.push(Event{Kind: KindAdmitted, CachedTokens: s.cached})
		}
	}
}

// recommit changes the pages that are set aside for a sequence.
func (e *Engine) recommit(s *sequence, pages int) {
	e.committed += pages - s.commit
	s.commit = pages
}

// withdraw takes a sequence off the device: its pages and its slot are free.
func (e *Engine) withdraw(s *sequence) {
	s.kv.Release()
	e.recommit(s, 0)
	e.slots = append(e.slots, s.slot)
	s.slot = noSlot
	e.running = slices.DeleteFunc(e.running, func(x *sequence) bool { return x == s })
}

// preempt sends a growing sequence back to the head of the queue. Its tokens and
// its sampler are kept: computed again, they lead to the same next token.
func (e *Engine) preempt(s *sequence) {
	e.o.Logger.Debug("sequence preempted: the KV pages are used up",
		"request", s.req.ID, "tokens", s.total(), "pages", s.kv.Pages())
	e.keep(s)
	e.requeue(s)
}

// requeue takes a sequence off the device until it is admitted again.
func (e *Engine) requeue(s *sequence) {
	e.withdraw(s)
	s.preempted++
	e.count.Preemptions++
	e.queue.pushPreempted(s)
}

// reserve makes sure that a sequence may hold the pages for its tokens up to to.
// A growing sequence that needs more than it reserved takes uncommitted pages or,
// when there are none, preempts the youngest growing sequence. That may be
// itself: then reserve returns false.
func (e *Engine) reserve(s *sequence, to int) bool {
	for {
		need := s.kv.Pages() + s.kv.Need(to)
		if need <= s.commit {
			return true
		}
		if e.committed+need-s.commit <= e.pages.Pages() {
			e.recommit(s, need)
			return true
		}
		if e.settle() { // it may have given pages back, and ended s
			if s.slot == noSlot {
				return false
			}
			continue
		}
		victim := s // it is growing, or its pages had been reserved
		for _, other := range e.running {
			if other.growing && other.arrival > victim.arrival {
				victim = other
			}
		}
		e.preempt(victim)
		if victim == s {
			return false
		}
	}
}

// schedule decides which sequences take part in the next step and sets planned,
// the end of their chunk.
//
// Decoding sequences come first, one token each: they are what a reader sees
// stutter. The rest of the budget goes to prefills. A sequence whose last token the
// step under way chooses takes no part any more.
func (e *Engine) schedule() []*sequence {
	for _, s := range e.running {
		s.planned = s.kv.Len()
	}
	decodes := 0
	for _, s := range slices.Clone(e.running) { // oldest first; reserve may preempt younger ones
		if s.slot != noSlot && s.decoding() && s.total() < s.limit && e.reserve(s, s.total()) {
			s.planned = s.total()
			decodes++
		}
	}
	budget := e.o.StepTokens - decodes
	if decodes > 0 {
		depth := 0
		if s := e.prefilling(); s != nil {
			depth = s.kv.Len()
		}
		budget = min(budget, e.pace.budget(decodes, depth))
	}
	e.schedulePrefills(budget, decodes == 0)

	var chosen []*sequence
	for _, s := range e.running {
		if s.planned > s.kv.Len() {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// prefilling returns the oldest sequence that prefills; nil when none does.
func (e *Engine) prefilling() *sequence {
	for _, s := range e.running {
		if !s.decoding() {
			return s
		}
	}
	return nil
}

// schedulePrefills shares the budget among the sequences that prefill. Half goes
// to the oldest, so that it is never starved; the rest to those that have the
// least left, so that a short prompt need not wait for a long one; what they leave
// goes to the oldest again. A budget of less than two blocks is not shared: the
// oldest and the one with the least left take turns.
//
// With whole, chunks end with a block, as far as they can. Beside decodes they had
// better fill what the step may take, to the last of its rows.
func (e *Engine) schedulePrefills(budget int, whole bool) {
	var prefills []*sequence
	for _, s := range e.running {
		// Logits that nobody took yet are memory that nobody bounds.
		if !s.decoding() && !(s.req.Logits && s.stream.holdsLogits()) {
			prefills = append(prefills, s)
		}
	}
	if len(prefills) == 0 || budget == 0 {
		return
	}
	oldest := prefills[0]
	slices.SortStableFunc(prefills, func(a, b *sequence) int { return cmp.Compare(a.remaining(), b.remaining()) })

	first, share := oldest, max(budget/2, plan.BlockSize)
	if budget < 2*plan.BlockSize {
		whole, share = false, budget
		if e.turn = !e.turn; e.turn {
			first = prefills[0]
		}
	}
	for i, s := range slices.Concat([]*sequence{first}, prefills, []*sequence{oldest}) {
		grant := budget
		if i == 0 {
			grant = share
		}
		end := e.chunkEnd(s, grant, whole)
		budget -= end - s.planned
		s.planned = end
	}
}

// chunkEnd returns the end of a chunk that is prolonged by at most that many
// tokens and does not run past a place where a prefix is to be kept. With whole,
// a chunk that is not the prompt's last ends at the end of a block, so that chunks
// begin with one and enter the fewest pages.
func (e *Engine) chunkEnd(s *sequence, tokens int, whole bool) int {
	end := min(s.planned+tokens, s.kv.Reach(s.commit), e.nextStop(s))
	if s.req.Logits {
		end = min(end, s.kv.Len()+plan.BlockSize) // bounds the logits held at once
	}
	if end >= s.total() {
		return s.total()
	}
	if whole {
		end = end / plan.BlockSize * plan.BlockSize
	}
	return max(s.planned, end)
}
