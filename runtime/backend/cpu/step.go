package cpu

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
)

// Step computes one batch. It returns an error, having touched nothing, when the
// batch does not fit the device.
func (d *Device) Step(b *backend.Batch) (*backend.Result, error) {
	if err := b.Check(d.bounds()); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	for _, e := range b.Deltas {
		d.tables.Enter(e)
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

// bounds are what the device can take.
func (d *Device) bounds() backend.Bounds {
	o := backend.Bounds{
		Tokens: d.opts.MaxBatchTokens, Sequences: d.opts.MaxSequences, Vocab: d.cfg.Vocab, Heads: d.cfg.Layers * d.cfg.KVHeads, Context: maxContext,
	}
	if d.pool != nil {
		o.Pages = d.pool.Pages()
	}
	return o
}

// maxContext bounds the page tables, which grow as they are used: 16M tokens, far
// beyond any model.
const maxContext = 1 << 24
