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

// queue holds the requests that wait for admission: first the preempted ones,
// oldest first, then those of the tenants, who take turns, each first in, first
// out.
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
func (q *queue) next(fits func(*sequence) bool) *sequence {
	if len(q.preempted) > 0 {
		s := q.preempted[0]
		if !fits(s) {
			return nil
		}
		q.preempted = q.preempted[1:]
		q.n--
		return s
	}
	for i, l := range q.turns {
		s := l.seqs[0]
		if fits(s) {
			for _, passed := range q.turns[:i] {
				passed.seqs[0].overtaken++
			}
			q.turns = append(slices.Delete(q.turns, i, i+1), l)
			l.seqs = l.seqs[1:]
			q.n--
			q.drop(l)
			return s
		}
		if s.overtaken >= maxOvertaken {
			return nil
		}
	}
	return nil
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
