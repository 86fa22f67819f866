//go:build cuda

package cuda

import (
	"fmt"
	"slices"
	"time"

	"github.com/moaserve/moaserve/cudakernels"
)

// warmPasses is how often a shape is run ahead of need: first its products choose
// their algorithms, then its graph is recorded.
const warmPasses = 2

// warmMixed bounds the steps, in rows, that are prepared because prompts are read beside
// decodes in pieces of any such size. Longer ones would take many times as long to
// prepare, and what they lose once is less of them.
const warmMixed = 1024

// costRuns of a step are timed; the shortest counts.
const costRuns = 2

// Warm prepares the steps that a server runs in most: decodes of every number of
// sequences, whole chunks of prompts, and pieces of prompts beside decodes. Each would
// otherwise cost the first requests tens of milliseconds. The last it measures, too, for
// RowCosts. It computes rows of padding;
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
		if err := d.prepare(s); err != nil {
			return d.failed(err)
		}
	}
	d.rowCosts = nil
	for n := rowBucket; n <= min(warmMixed, d.opts.MaxBatchTokens); n += rowBucket {
		s := shape{rows: n, logits: 1, decodes: true, prefills: true}
		took, err := d.measure(s)
		if err != nil {
			return d.failed(err)
		}
		d.rowCosts = append(d.rowCosts, took)
	}
	return nil
}

// RowCosts returns what Warm measured: the time of steps of RowMultiple() rows, of twice
// as many, and so on, which read part of a prompt beside a decode; without what their
// tokens see, for they are padding. It is empty before.
func (d *Device) RowCosts() []time.Duration { return slices.Clone(d.rowCosts) }

// prepare runs a step until its products have chosen and, if it is one of those, its graph
// is recorded.
func (d *Device) prepare(s shape) error {
	passes := warmPasses
	if !s.recordable() {
		passes = 1
	}
	for range passes {
		if err := d.runPadding(s); err != nil {
			return fmt.Errorf("warming up a %v: %w", s, err)
		}
	}
	return nil
}

// measure prepares a step and returns how long it takes.
func (d *Device) measure(s shape) (time.Duration, error) {
	if err := d.prepare(s); err != nil {
		return 0, err
	}
	var shortest time.Duration
	for range costRuns {
		took, err := d.stream.Time(func() error { return d.run(s) })
		if err != nil {
			return 0, fmt.Errorf("timing a %v: %w", s, err)
		}
		if shortest == 0 || took < shortest {
			shortest = took
		}
	}
	return shortest, nil
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
