// Package kv keeps the books of the paged, ragged KV cache: which pages are
// free, and which page holds which block of which head of which sequence. It
// holds no keys and no values and knows neither device nor model, only page
// numbers and layouts.
//
// A page belongs to one block of one KV head of one layer. Each head of a
// sequence holds the blocks of its own span, so heads of one sequence hold
// different numbers of pages. Heads are numbered as in [plan.Layout].
//
// Nothing in this package is safe for concurrent use: the scheduler's goroutine
// owns a Pool and all of its Sequences.
package kv

import (
	"errors"
	"fmt"
)

// ErrNoPages is what errors.Is finds when the pool has too few free pages.
var ErrNoPages = errors.New("no free KV pages")

// Pool hands out page numbers 0 to Pages()-1 and counts their holders. A page
// is free when nothing holds it.
type Pool struct {
	free   []int32 // a stack: the page returned last is the warmest in caches
	refs   []int32 // holders of each page
	cached []int32 // of which are snapshots
	idle   int     // pages that only snapshots hold
}

// NewPool returns a pool of that many free pages.
func NewPool(pages int) *Pool {
	p := &Pool{free: make([]int32, pages), refs: make([]int32, pages), cached: make([]int32, pages)}
	for i := range p.free {
		p.free[i] = int32(pages - 1 - i)
	}
	return p
}

// Pages returns the size of the pool.
func (p *Pool) Pages() int { return len(p.refs) }

// Free returns the number of pages that nothing holds.
func (p *Pool) Free() int { return len(p.free) }

// Used returns the number of pages that sequences hold, each counted once however
// many hold it.
func (p *Pool) Used() int { return len(p.refs) - len(p.free) - p.idle }

// Cached returns the number of pages that only snapshots hold.
func (p *Pool) Cached() int { return p.idle }

// Refs returns the number of holders of a page.
func (p *Pool) Refs(page int32) int { return int(p.refs[page]) }

// Acquire takes a free page; the caller is its only holder.
func (p *Pool) Acquire() (int32, error) {
	n := len(p.free)
	if n == 0 {
		return 0, ErrNoPages
	}
	page := p.free[n-1]
	p.free = p.free[:n-1]
	p.refs[page] = 1
	return page, nil
}

// Retain adds a holder to a page that is held already.
func (p *Pool) Retain(page int32) {
	if p.refs[page] <= 0 {
		panic(fmt.Sprintf("kv: page %d is retained but free", page))
	}
	if p.refs[page] == p.cached[page] {
		p.idle--
	}
	p.refs[page]++
}

// retainCached adds a snapshot to the holders of a page.
func (p *Pool) retainCached(page int32) {
	if p.refs[page] <= 0 {
		panic(fmt.Sprintf("kv: page %d is cached but free", page))
	}
	p.refs[page]++
	p.cached[page]++
}

// releaseCached takes a snapshot from the holders of a page.
func (p *Pool) releaseCached(page int32) {
	if p.refs[page] == p.cached[page] {
		p.idle--
	}
	p.cached[page]--
	if p.refs[page]--; p.refs[page] == 0 {
		p.free = append(p.free, page)
	} else if p.refs[page] == p.cached[page] {
		p.idle++
	}
}

// Release takes one holder from a page and frees it when that was the last. A
// page released more often than it was held is a bug that would hand one page to
// two sequences, so it panics.
func (p *Pool) Release(page int32) {
	if p.refs[page] <= 0 {
		panic(fmt.Sprintf("kv: page %d is released but free", page))
	}
	if p.refs[page]--; p.refs[page] == 0 {
		p.free = append(p.free, page)
	} else if p.refs[page] == p.cached[page] {
		p.idle++
	}
}
