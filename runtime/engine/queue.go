package engine

import (
	"cmp"
	"slices"
)

// maxOvertaken bounds how many requests of other tenants may be admitted past one
// whose pages are not free yet. Without overtaking, one long document would leave
// pages idle that many short chats could use; without the bound, short chats
// could keep it waiting for ever.
const maxOvertaken = 32

// maxAwaiting bounds how many requests of a tenant that await a prefix are looked past
// for one that does not: each look compares all blocks of a prompt.
const maxAwaiting = 32

// admission says whether a request can be admitted.
type admission int

const (
	ready admission = iota
	// lacksPages: those behind it in its line wait, too, and others may overtake it only
	// so often.
	lacksPages
	// awaitsPrefix: what a prefill or a disk is about to bring spares it work. It holds
	// nobody up meanwhile.
	awaitsPrefix
)

// queue holds the requests that wait for admission: first the preempted ones,
// oldest first, then those of the tenants, who take turns, each first in, first
// out but for those that await a prefix.
type queue struct {
	preempted []*sequence
	tenants   map[string]*line
	turns     []*line // tenants with requests; the first is next
	n         int
}

// line is the queue of one tenant. It is never empty.
type line struct {
	tenant string
	seqs   []*sequence
}

func newQueue() *queue { return &queue{tenants: make(map[string]*line)} }

// len counts the requests.
func (q *queue) len() int { return q.n }

// push adds a request to the end of its tenant's line.
func (q *queue) push(s *sequence) {
	q.n++
	l := q.tenants[s.req.Tenant]
	if l == nil {
		l = &line{tenant: s.req.Tenant}
		q.tenants[l.tenant] = l
		q.turns = append(q.turns, l)
	}
	l.seqs = append(l.seqs, s)
}

// pushPreempted returns a sequence to the head of the queue.
func (q *queue) pushPreempted(s *sequence) {
	q.n++
	i, _ := slices.BinarySearchFunc(q.preempted, s, byArrival)
	q.preempted = slices.Insert(q.preempted, i, s)
}

// next removes and returns the request to admit now; nil when none may be.
func (q *queue) next(fits func(*sequence) admission) *sequence {
	if len(q.preempted) > 0 {
		at, how := first(q.preempted, fits)
		if how != ready {
			return nil
		}
		s := q.preempted[at]
		q.preempted = slices.Delete(q.preempted, at, at+1)
		q.n--
		return s
	}
	var passed []*sequence // that lack pages
	for i, l := range q.turns {
		at, how := first(l.seqs[:min(len(l.seqs), maxAwaiting)], fits)
		switch how {
		case ready:
			for _, s := range passed {
				s.overtaken++
			}
			s := l.seqs[at]
			q.turns = append(slices.Delete(q.turns, i, i+1), l)
			l.seqs = slices.Delete(l.seqs, at, at+1)
			q.n--
			q.drop(l)
			return s
		case lacksPages:
			if l.seqs[at].overtaken >= maxOvertaken {
				return nil
			}
			passed = append(passed, l.seqs[at])
		}
	}
	return nil
}

// first returns the place of the first request that does not await a prefix, and how it
// stands with it; awaitsPrefix when there is none.
func first(seqs []*sequence, fits func(*sequence) admission) (int, admission) {
	for i, s := range seqs {
		if how := fits(s); how != awaitsPrefix {
			return i, how
		}
	}
	return 0, awaitsPrefix
}

// remove takes out the requests for which gone is true and returns them.
func (q *queue) remove(gone func(*sequence) bool) []*sequence {
	var removed []*sequence
	sweep := func(s *sequence) bool {
		if !gone(s) {
			return false
		}
		removed = append(removed, s)
		return true
	}
	q.preempted = slices.DeleteFunc(q.preempted, sweep)
	for _, l := range slices.Clone(q.turns) {
		l.seqs = slices.DeleteFunc(l.seqs, sweep)
		q.drop(l)
	}
	q.n -= len(removed)
	return removed
}

// drop forgets a tenant whose line is empty.
func (q *queue) drop(l *line) {
	if len(l.seqs) > 0 {
		return
	}
	delete(q.tenants, l.tenant)
	q.turns = slices.DeleteFunc(q.turns, func(x *line) bool { return x == l })
}

func byArrival(a, b *sequence) int { return cmp.Compare(a.arrival, b.arrival) }
