//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
)

// Step computes one batch. It returns an error, having touched nothing, when the
// batch does not fit the device. See IsDeviceLost for the errors after which no
// step succeeds.
func (d *Device) Step(b *backend.Batch) (*backend.Result, error) {
	if d.lost != nil {
		return nil, d.lost
	}
	if err := d.check(b); err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	for _, e := range b.Deltas {
		d.tables.enter(e)
	}
	leave, err := d.ctx.Enter()
	if err != nil {
		return nil, d.failed(err)
	}
	defer leave()
	if d.dirty {
		if err := errors.Join(d.resetWorkspaces(), d.stream.Wait()); err != nil {
			return nil, d.failed(err)
		}
		d.dirty = false
	}
	if err := d.sendDeltas(b.Deltas); err != nil {
		return nil, d.failed(err)
	}
	for i, s := range b.Seqs {
		if err := d.tables.check(i, s); err != nil {
			return nil, errors.Join(fmt.Errorf("cuda: %w", err), d.stream.Wait())
		}
	}
	if err := d.rules.place(d, b.Seqs); err != nil {
		return nil, d.failed(err)
	}
	d.arrange(b)
	r, err := d.compute(b)
	if err != nil {
		return nil, d.failed(err)
	}
	return r, nil
}

// failed remembers what an error of the driver means for the steps to come.
func (d *Device) failed(err error) error {
	err = fmt.Errorf("cuda: %w", err)
	d.dirty = true
	if IsDeviceLost(err) {
		d.lost = err
	}
	return err
}

// compute runs the arranged batch. Logits beyond the first logitRows rows, which
// only the whole of a long prompt's can be, follow piece by piece.
func (d *Device) compute(b *backend.Batch) (*backend.Result, error) {
	o, most := &d.order, d.buffers.logitRows
	d.output.begin(len(b.Rows))
	first := b.Rows[:min(len(b.Rows), most)]
	d.output.index(d, first)
	err := d.run(shape{
		rows: bucket(o.rows), logits: logitBucket(len(first)),
		decodes: o.decodes > 0, prefills: o.decodes < len(b.Seqs), draw: draws(first),
	})
	if err != nil {
		return nil, err
	}
	if err := d.output.answer(d, first, 0); err != nil {
		return nil, err
	}
	for from := most; from < len(b.Rows); from += most {
		rows := b.Rows[from:min(from+most, len(b.Rows))]
		d.output.index(d, rows)
		p := pass{d: d}
		p.do(d.input.upload(d))
		p.logits(logitBucket(len(rows)), draws(rows))
		if p.err != nil {
			return nil, p.err
		}
		if err := d.output.answer(d, rows, from); err != nil {
			return nil, err
		}
	}
	return &d.output.result, nil
}

// check refuses a batch that would read or write outside the device's buffers.
// The engine never makes one; a wrong index must not become a wrong answer.
func (d *Device) check(b *backend.Batch) error {
	if d.pool == nil {
		return errors.New("the device has no KV pool")
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
		if s.Offset != next || s.Len < 1 || s.Start < 0 || s.Slot < 0 || s.Slot >= d.opts.MaxSequences || s.Layout == nil {
			return fmt.Errorf("sequence %d of the batch is malformed: slot %d, offset %d, length %d, start %d", i, s.Slot, s.Offset, s.Len, s.Start)
		}
		if s.Start > d.maxPositions()-s.Len {
			return fmt.Errorf("sequence %d of the batch ends at position %d; the device was loaded for %d", i, s.Start+s.Len, d.maxPositions())
		}
		next += s.Len
	}
	if next != len(b.Tokens) {
		return fmt.Errorf("the sequences of the batch cover %d of its %d tokens", next, len(b.Tokens))
	}
	for _, e := range b.Deltas {
		if e.Slot < 0 || int(e.Slot) >= d.opts.MaxSequences || e.Head < 0 || int(e.Head) >= d.tables.heads || e.Page < 0 || int(e.Page) >= d.pool.pages ||
			e.Block < 0 || int(e.Block) >= d.buffers.maxBlocks {
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
