package backend

import (
	"errors"
	"fmt"
	"math"

	"github.com/moaserve/moaserve/runtime/plan"
)

// Bounds are what a device can take. A batch beyond them would read or write
// outside of its buffers.
type Bounds struct {
	Tokens, Sequences int // of a batch; slots are below Sequences
	Vocab             int
	Heads             int // layers * KV heads
	Pages             int // of the pool; 0 when there is none
	Context           int // positions
	Choices           int // rows of the step under way that [ChoiceOf] may name
}

// Check refuses a batch that is malformed or out of bounds. The engine never makes
// one; a wrong index must not become a wrong answer.
func (b *Batch) Check(o Bounds) error {
	if o.Pages == 0 {
		return errors.New("the device has no KV pool")
	}
	if len(b.Tokens) == 0 || len(b.Tokens) > o.Tokens || len(b.Seqs) > o.Sequences {
		return fmt.Errorf("a batch of %d tokens in %d sequences; the device was loaded for 1 to %d tokens in at most %d",
			len(b.Tokens), len(b.Seqs), o.Tokens, o.Sequences)
	}
	for _, id := range b.Tokens {
		if id < -int32(min(o.Choices, math.MaxInt32)) || int(id) >= o.Vocab {
			return fmt.Errorf("token %d is outside the vocabulary of %d", id, o.Vocab)
		}
	}
	next := 0
	for i, s := range b.Seqs {
		if s.Offset != next || s.Len < 1 || s.Start < 0 || s.Slot < 0 || s.Slot >= o.Sequences || s.Layout == nil {
			return fmt.Errorf("sequence %d of the batch is malformed: slot %d, offset %d, length %d, start %d", i, s.Slot, s.Offset, s.Len, s.Start)
		}
		if s.Start > o.Context-s.Len {
			return fmt.Errorf("sequence %d of the batch ends at position %d; the device was loaded for %d", i, s.Start+s.Len, o.Context)
		}
		next += s.Len
	}
	if next != len(b.Tokens) {
		return fmt.Errorf("the sequences of the batch cover %d of its %d tokens", next, len(b.Tokens))
	}
	return errors.Join(b.checkDeltas(o), b.checkRows())
}

func (b *Batch) checkDeltas(o Bounds) error {
	for _, e := range b.Deltas {
		if e.Slot < 0 || int(e.Slot) >= o.Sequences || e.Head < 0 || int(e.Head) >= o.Heads || e.Page < 0 || int(e.Page) >= o.Pages ||
			e.Block < 0 || int(e.Block) >= plan.Blocks(o.Context) {
			return fmt.Errorf("page-table entry %+v is out of range", e)
		}
	}
	return nil
}

func (b *Batch) checkRows() error {
	for _, r := range b.Rows {
		if r.Seq < 0 || r.Seq >= len(b.Seqs) || r.Token < 0 || r.Token >= b.Seqs[r.Seq].Len {
			return fmt.Errorf("row %+v is outside the batch", r)
		}
	}
	return nil
}
