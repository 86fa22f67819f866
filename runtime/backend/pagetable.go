package backend

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/plan"
)

// PageTables are the page tables of a device's slots on the host: a CPU computes
// from them, and every device tells by them whether each block that a query sees was
// entered. The zero value has no slots. They belong to one goroutine.
type PageTables struct {
	heads int
	slots []pageTable
}

// pageTable is the table of one slot: the page of block b of head h is pages[h][b],
// -1 when it was never entered.
type pageTable struct {
	pages [][]int32
	// complete and block are the layout and the block for which the table was last
	// found complete: a decoding sequence is not looked at again until it enters the
	// next block.
	complete *plan.Layout
	block    int
}

// NewPageTables returns empty tables of that many slots and heads (layers * KV heads).
func NewPageTables(slots, heads int) PageTables {
	return PageTables{heads, make([]pageTable, slots)}
}

// Enter records an entry that [Batch.Check] let pass.
func (t *PageTables) Enter(e TableDelta) {
	s := &t.slots[e.Slot]
	if s.pages == nil {
		s.pages = make([][]int32, t.heads)
	}
	row := s.pages[e.Head]
	for int(e.Block) >= len(row) {
		row = append(row, -1)
	}
	row[e.Block] = e.Page
	s.pages[e.Head] = row
	s.complete = nil
}

// Page returns the page that an entry has by now.
func (t *PageTables) Page(e TableDelta) int32 { return t.slots[e.Slot].pages[e.Head][e.Block] }

// Heads returns the rows of a slot's table, by head; nil when nothing was entered.
func (t *PageTables) Heads(slot int) [][]int32 { return t.slots[slot].pages }

// Check refuses sequence i of a batch when a block that it sees was never entered.
func (t *PageTables) Check(i int, s Seq) error {
	table := &t.slots[s.Slot]
	first, last := s.Start/plan.BlockSize, (s.Start+s.Len-1)/plan.BlockSize
	if table.complete == s.Layout && table.block == first && first == last {
		return nil
	}
	if s.Layout.Heads() != t.heads || table.pages == nil {
		return fmt.Errorf("sequence %d: its layout has %d heads, its page table %d", i, s.Layout.Heads(), len(table.pages))
	}
	for h, row := range table.pages {
		if last >= len(row) || row[0] < 0 {
			return fmt.Errorf("sequence %d: head %d has no page for block 0 or %d", i, h, last)
		}
		start := s.Layout.Start(h, first)
		for _, page := range row[start : last+1] {
			if page < 0 {
				return fmt.Errorf("sequence %d: head %d lacks a page of its visible blocks %d to %d", i, h, start, last)
			}
		}
	}
	table.complete, table.block = s.Layout, last
	return nil
}
