package kv

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/plan"
)

// Starts returns the first block that each head of the prefix holds beside the
// sink. With Tokens it is all there is to know of a Snapshot's form: head h
// holds the blocks from Starts()[h] to the end of the prefix, and block 0.
func (n *Snapshot) Starts() []int {
	starts := make([]int, len(n.heads))
	for h := range n.heads {
		starts[h] = n.heads[h].first
	}
	return starts
}

// AppendPages appends the pages of the prefix in a fixed order: head by head,
// the sink first, then the blocks in ascending order.
func (n *Snapshot) AppendPages(pages []int32) []int32 {
	for h := range n.heads {
		n.heads[h].each(func(page int32) { pages = append(pages, page) })
	}
	return pages
}

// PagesOf returns the number of pages of a prefix with that length and those
// starts. It is an error when there can be no such prefix.
func PagesOf(tokens int, starts []int) (int, error) {
	if tokens <= 0 || tokens%plan.BlockSize != 0 {
		return 0, fmt.Errorf("a prefix of %d tokens does not end at a block boundary", tokens)
	}
	if len(starts) == 0 {
		return 0, errors.New("a prefix without heads")
	}
	blocks, total := tokens/plan.BlockSize, 0
	for h, start := range starts {
		if start < 0 || start > blocks {
			return 0, fmt.Errorf("head %d of a prefix of %d blocks starts at block %d", h, blocks, start)
		}
		total += blocks - start
		if start > 0 {
			total++
		}
	}
	return total, nil
}

// NewSnapshot takes free pages for a prefix whose keys and values come from
// elsewhere, as if a sequence of that layout had computed them and left: the caller
// finds out whether the prefix Fits, fills the pages that AppendPages lists before
// anything continues it, and releases the Snapshot or gives it to a Prefixes. It
// takes all pages or, with ErrNoPages, none.
func NewSnapshot(pool *Pool, l *plan.Layout, tokens int, starts []int) (*Snapshot, error) {
	need, err := PagesOf(tokens, starts)
	if err != nil {
		return nil, err
	}
	if need > pool.Free() {
		return nil, fmt.Errorf("a prefix of %d tokens needs %d pages, %d are free: %w", tokens, need, pool.Free(), ErrNoPages)
	}
	n := &Snapshot{pool: pool, layout: l, tokens: tokens, heads: make([]head, len(starts))}
	for h, start := range starts {
		hd := head{first: start, sink: noPage, ring: make([]int32, tokens/plan.BlockSize-start)}
		if start > 0 {
			hd.sink = n.acquire()
		}
		for i := range hd.ring {
			hd.ring[i] = n.acquire()
		}
		n.heads[h] = hd
	}
	return n, nil
}

// acquire takes one of the pages that NewSnapshot has found to be free, with the
// snapshot as its only holder.
func (n *Snapshot) acquire() int32 {
	page, err := n.pool.Acquire()
	if err != nil {
		panic("kv: a free page is not free") // NewSnapshot has counted them
	}
	n.pool.retainCached(page)
	n.pool.Release(page)
	n.pages++
	return page
}

// Fits reports whether a sequence of that layout may continue the prefix: it
// holds the pages that the layout's own snapshot of that length would hold.
func (n *Snapshot) Fits(l *plan.Layout) bool {
	if len(n.heads) != l.Heads() {
		return false
	}
	for h := range n.heads {
		if n.heads[h].first != l.Start(h, n.tokens/plan.BlockSize) {
			return false
		}
	}
	return true
}
