//go:build cuda

package cuda

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/plan"
)

// tables is the host's copy of the page tables. The device trusts its own; this
// one tells whether every block that a query sees was entered.
type tables struct {
	heads int
	slots []slotTable
}

// slotTable is the page table of one slot: the page of block b of head h is
// pages[h][b], -1 when it was never entered.
type slotTable struct {
	pages [][]int32
	// checked is the layout and the block for which the table was last found
	// complete; a decoding sequence need not be checked again until it enters the
	// next block.
	checked      *plan.Layout
	checkedBlock int
}

func newTables(slots, heads int) tables { return tables{heads, make([]slotTable, slots)} }

// enter records an entry.
func (t *tables) enter(e backend.TableDelta) {
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
	s.checked = nil
}

// page returns the page that an entry has now.
func (t *tables) page(e backend.TableDelta) int32 { return t.slots[e.Slot].pages[e.Head][e.Block] }

// check refuses sequence i of a batch when a block that it sees was never entered.
func (t *tables) check(i int, s backend.Seq) error {
	table := &t.slots[s.Slot]
	first, last := s.Start/plan.BlockSize, (s.Start+s.Len-1)/plan.BlockSize
	if table.checked == s.Layout && table.checkedBlock == first && first == last {
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
	table.checked, table.checkedBlock = s.Layout, last
	return nil
}
