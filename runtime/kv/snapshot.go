package kv

import "github.com/moaserve/moaserve/runtime/plan"

// Snapshot is a cached prefix: the pages that hold what the token after it sees
// of the past. It shares them with the sequence it was taken from; nothing is
// copied, and a page that leaves the span of one holder stays for the others.
//
// A prefix ends at a block boundary, so its pages are full and never written
// again. Under span: position what they hold does not depend on what follows, so a
// sequence that continues a Snapshot computes exactly what it would have computed
// from the start.
type Snapshot struct {
	pool   *Pool
	layout *plan.Layout
	tokens int
	heads  []head
	pages  int
}

// Snapshot returns the prefix of the sequence that ends at the last block
// boundary before or at Len. The caller releases it.
func (s *Sequence) Snapshot() *Snapshot {
	blocks := s.computed / plan.BlockSize
	n := &Snapshot{pool: s.pool, layout: s.layout, tokens: blocks * plan.BlockSize, heads: make([]head, len(s.heads))}
	for h := range s.heads {
		hd := &s.heads[h]
		full := max(0, blocks-hd.first) // without the block being filled
		n.heads[h] = head{ring: append([]int32(nil), hd.ring[:min(full, len(hd.ring))]...), first: hd.first, sink: hd.sink}
		n.heads[h].each(func(page int32) {
			s.pool.retainCached(page)
			n.pages++
		})
	}
	return n
}

// Layout returns the layout of the sequence that it was taken from.
func (n *Snapshot) Layout() *plan.Layout { return n.layout }

// Tokens returns the length of the prefix.
func (n *Snapshot) Tokens() int { return n.tokens }

// Pages returns the number of pages that the snapshot holds, shared or not.
func (n *Snapshot) Pages() int { return n.pages }

// Release gives the pages back. The Snapshot must not be used afterwards.
func (n *Snapshot) Release() {
	for h := range n.heads {
		n.heads[h].each(n.pool.releaseCached)
	}
	n.heads = nil
}

// Continue makes an empty sequence, of a layout with the same plan as the
// snapshot's, continue after the prefix.
func (s *Sequence) Continue(n *Snapshot) {
	blocks := n.tokens / plan.BlockSize
	for h := range s.heads {
		from := &n.heads[h]
		s.heads[h] = head{ring: append([]int32(nil), from.ring...), first: from.first, sink: from.sink}
		s.heads[h].each(s.pool.Retain)
	}
	s.computed, s.entered, s.blocks, s.start, s.pages = n.tokens, n.tokens, blocks, blocks, n.pages
}

// Entries appends the page-table entries of all pages that the sequence holds:
// what a device that has not seen it before must be told.
func (s *Sequence) Entries(deltas []Delta) []Delta {
	for h := range s.heads {
		hd := &s.heads[h]
		if hd.sink != noPage {
			deltas = append(deltas, Delta{Head: int32(h), Block: 0, Page: hd.sink})
		}
		for i, page := range hd.ring {
			deltas = append(deltas, Delta{Head: int32(h), Block: int32(hd.first + i), Page: page})
		}
	}
	return deltas
}

// each calls f for every page of a head.
func (hd *head) each(f func(page int32)) {
	if hd.sink != noPage {
		f(hd.sink)
	}
	for _, page := range hd.ring {
		f(page)
	}
}
