//go:build cuda

package cuda

import (
	"fmt"

	"github.com/moaserve/moaserve/cudakernels"
)

// warmPasses is how often a shape is run ahead of need: first its products choose
// their algorithms, then its graph is recorded.
const warmPasses = 2

// warmMixed bounds the steps, in rows, whose products choose their algorithms ahead of
// need because prompts are read beside decodes in pieces of any such size. Longer ones
// would take many times as long to prepare, and what they lose once is less of them.
const warmMixed = 1024

// Warm prepares the steps that a server runs in most: decodes of every number of
// sequences, whole chunks of prompts, and pieces of prompts beside decodes. Each would
// otherwise cost the first requests tens of milliseconds. It computes rows of padding;
// no page is written. The pool must be there, for graphs know its address, and no step
// may be under way.
func (d *Device) Warm() error {
	if d.pool == nil || d.begun != d.ended {
		return fmt.Errorf("cuda: warming up wants a pool and no step under way")
	}
	leave, err := d.ctx.Enter()
	if err != nil {
		return d.failed(err)
	}
	defer leave()
	for _, s := range d.commonShapes() {
		for range warmPasses {
			if err := d.runPadding(s); err != nil {
				return d.failed(fmt.Errorf("warming up a %v: %w", s, err))
			}
		}
	}
	for n := rowBucket; n <= min(warmMixed, d.opts.MaxBatchTokens); n += rowBucket {
		if err := d.runPadding(shape{rows: n, prefills: true}); err != nil {
			return d.failed(fmt.Errorf("warming up products of %d rows: %w", n, err))
		}
	}
	return nil
}

// commonShapes lists what Warm prepares.
func (d *Device) commonShapes() []shape {
	var all []shape
	for n := 1; ; n = bucket(n + 1) {
		all = append(all, shape{rows: n, logits: n, decodes: true})
		if n >= d.opts.MaxSequences {
			break
		}
	}
	chunk := shape{rows: bucket(d.opts.MaxBatchTokens - d.opts.MaxSequences), prefills: true}
	last := chunk
	last.logits = 1
	return append(all, chunk, last)
}

// runPadding runs a step without sequences.
func (d *Device) runPadding(s shape) error {
	in := d.flights[0].input
	in.header[0] = cudakernels.Header{}
	for r := range s.rows {
		in.tokens[r], in.rows[r] = 0, cudakernels.Row{Seq: -1}
	}
	in.nameRows(d, nil, nil, false)
	if err := in.upload(d); err != nil {
		return err
	}
	if err := d.run(s); err != nil {
		return err
	}
	return d.stream.Wait()
}
