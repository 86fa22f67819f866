package cpu

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
)

// Step computes one batch. It returns an error, having touched nothing, when the
// batch does not fit the device.
func (d *Device) Step(b *backend.Batch) (*backend.Result, error) {
	if err := d.check(b); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	heads := d.cfg.Layers * d.cfg.KVHeads
	for _, e := range b.Deltas {
		d.tables[e.Slot].enter(e.Head, e.Block, e.Page, heads)
	}
	p := &d.pass
	if err := p.begin(b); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	for i := range d.layers {
		p.attend(i)
		p.feedForward(i)
	}
	return p.answer(b), nil
}

// check refuses a batch that would read or write outside the device's buffers.
// The engine never makes one; a wrong index must not become a wrong answer.
func (d *Device) check(b *backend.Batch) error {
	if d.pool == nil {
		return fmt.Errorf("the device has no KV pool")
	}
	if len(b.Tokens) == 0 || len(b.Tokens) > d.opts.MaxBatchTokens || len(b.Seqs) > d.opts.MaxSequences {
		return fmt.Errorf("a batch of %d tokens in %d sequences; the device was loaded for 1 to %d tokens in at most %d",
			len(b.Tokens), len(b.Seqs), d.opts.MaxBatchTokens, d.opts.MaxSequences)
	}
	for _, id := range b.Tokens {
		if id < 0 || int(id) >= d.cfg.Vocab {
			return fmt.Errorf("token %d is outside the vocabulary of %d", id, d.cfg.Vocab)
		}
	}
	next := 0
	for i, s := range b.Seqs {
		if s.Offset != next || s.Len < 1 || s.Start < 0 || s.Slot < 0 || s.Slot >= len(d.tables) || s.Layout == nil {
			return fmt.Errorf("sequence %d of the batch is malformed: slot %d, offset %d, length %d, start %d", i, s.Slot, s.Offset, s.Len, s.Start)
		}
		next += s.Len
	}
	if next != len(b.Tokens) {
		return fmt.Errorf("the sequences of the batch cover %d of its %d tokens", next, len(b.Tokens))
	}
	heads := int32(d.cfg.Layers * d.cfg.KVHeads)
	for _, e := range b.Deltas {
		if e.Slot < 0 || int(e.Slot) >= len(d.tables) || e.Head < 0 || e.Head >= heads || e.Page < 0 || int(e.Page) >= d.pool.Pages() ||
			e.Block < 0 || e.Block > maxBlock {
			return fmt.Errorf("page-table entry %+v is out of range", e)
		}
	}
	for _, r := range b.Rows {
		if r.Seq < 0 || r.Seq >= len(b.Seqs) || r.Token < 0 || r.Token >= b.Seqs[r.Seq].Len {
			return fmt.Errorf("row %+v is outside the batch", r)
		}
	}
	return nil
}

// maxBlock bounds a page table: 16M tokens of context, far beyond any model.
const maxBlock = 1 << 18
