package kv

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/plan"
)

// noPage marks a head that has no pinned sink yet.
const noPage int32 = -1

// Delta says that a page now holds a block of a head: what the device must
// enter into the sequence's page table before it computes.
type Delta struct {
	Head, Block, Page int32
}

// Sequence is the page bookkeeping of one sequence. Each step goes through two
// calls: Extend takes pages for the step's new tokens, Advance gives back those
// that no later token will see.
//
// Between the two, head h holds the sink and the blocks from
// Layout.Start(h, q0) to q1, where q0 and q1 are the blocks of the first and the
// last new token: exactly what the step's queries see. After Advance it holds
// what the next token will see of the past.
type Sequence struct {
	pool   *Pool
	layout *plan.Layout
	heads  []head

	computed int // tokens whose step is done
	entered  int // tokens that have a page; more than computed during a step
	blocks   int // blocks entered: ceil(entered / BlockSize)
	start    int // query block that the heads were last trimmed for
	pages    int // pages held by all heads
}

// head holds the blocks first, first+1, ... of one head, and the sink apart once
// the span has left it.
type head struct {
	ring  []int32
	first int
	sink  int32
}

// NewSequence returns the books of an empty sequence. It holds no pages.
func NewSequence(pool *Pool, layout *plan.Layout) *Sequence {
	s := &Sequence{pool: pool, layout: layout, heads: make([]head, layout.Heads())}
	for h := range s.heads {
		s.heads[h].sink = noPage
	}
	return s
}

// Layout returns the layout given to NewSequence.
func (s *Sequence) Layout() *plan.Layout { return s.layout }

// Len returns the number of tokens whose keys and values are computed: the
// position of the next token.
func (s *Sequence) Len() int { return s.computed }

// Pages returns the number of pages that the sequence holds now.
func (s *Sequence) Pages() int { return s.pages }

// Need returns how many pages Extend(to) would take. The sequence then holds
// Pages()+Need(to) = Layout.ChunkPages(Len(), to) pages.
func (s *Sequence) Need(to int) int {
	return max(0, plan.Blocks(to)-s.blocks) * len(s.heads)
}

// Reach returns how far Extend may go while the sequence holds at most that many
// pages: the end of the last block that it can enter.
func (s *Sequence) Reach(pages int) int {
	return (s.blocks + max(0, pages-s.pages)/len(s.heads)) * plan.BlockSize
}

// Extend takes a page in every head for each block that the tokens from Len()
// (included) to to (excluded) enter, and appends the page-table changes to
// deltas. It takes all of them or, with ErrNoPages, none.
func (s *Sequence) Extend(to int, deltas []Delta) ([]Delta, error) {
	if need := s.Need(to); need > s.pool.Free() {
		return deltas, fmt.Errorf("tokens %d to %d need %d pages, %d are free: %w",
			s.computed, to, need, s.pool.Free(), ErrNoPages)
	}
	s.entered = max(s.entered, to)
	for end := plan.Blocks(to); s.blocks < end; s.blocks++ {
		for h := range s.heads {
			page, err := s.pool.Acquire()
			if err != nil {
				return deltas, err // excluded by the test above
			}
			s.heads[h].ring = append(s.heads[h].ring, page)
			s.pages++
			deltas = append(deltas, Delta{Head: int32(h), Block: int32(s.blocks), Page: page})
		}
	}
	return deltas, nil
}

// Advance declares the tokens given to Extend computed and releases every page
// that left the span of its head. The sink stays pinned.
func (s *Sequence) Advance() {
	s.computed = s.entered
	next := s.computed / plan.BlockSize // the block of the next token
	if next == s.start {
		return
	}
	s.start = next
	for h := range s.heads {
		s.trim(&s.heads[h], s.layout.Start(h, next))
	}
}

// trim drops the blocks of one head before start.
func (s *Sequence) trim(hd *head, start int) {
	drop := min(start-hd.first, len(hd.ring))
	if drop <= 0 {
		return
	}
	gone := hd.ring[:drop]
	if hd.first == 0 {
		hd.sink, gone = gone[0], gone[1:]
	}
	for _, page := range gone {
		s.pool.Release(page)
	}
	s.pages -= len(gone)
	// The slice slides along its array; append moves the live pages to a new one
	// when the end is reached, so the array stays proportional to the span.
	hd.ring = hd.ring[drop:]
	hd.first += drop
}

// Release gives back all pages. The sequence is empty afterwards and may be
// used again from its first token.
func (s *Sequence) Release() {
	for h := range s.heads {
		hd := &s.heads[h]
		for _, page := range hd.ring {
			s.pool.Release(page)
		}
		if hd.sink != noPage {
			s.pool.Release(hd.sink)
		}
		*hd = head{sink: noPage}
	}
	s.computed, s.entered, s.blocks, s.start, s.pages = 0, 0, 0, 0, 0
}

// Page returns the page that holds a block of a head; false when the block is
// not held.
func (s *Sequence) Page(h, block int) (int32, bool) {
	hd := &s.heads[h]
	if i := block - hd.first; i >= 0 && i < len(hd.ring) {
		return hd.ring[i], true
	}
	if block == 0 && hd.sink != noPage {
		return hd.sink, true
	}
	return noPage, false
}
