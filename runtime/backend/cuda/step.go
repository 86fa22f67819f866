//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"slices"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// flight is a step between Begin and End: the host's side of what it needs. Two take
// turns, so that one is prepared while the device reads the other.
type flight struct {
	input  *input
	output *output
	// The device passes these before and after the step.
	start, done *cudadrv.Event

	batch    *backend.Batch
	rows     []backend.Row // the first of the batch's: as many as are computed at a time
	shape    shape
	onDevice bool // the device chooses the tokens of all rows
}

// newFlight allocates the host's side of a step. What it got to before an error is
// the caller's to close, too.
func (d *Device) newFlight() (*flight, error) {
	f := &flight{}
	var err error
	if f.input, err = d.newInput(); err != nil {
		return f, err
	}
	if f.output, err = d.newOutput(); err != nil {
		return f, err
	}
	if f.start, err = d.ctx.NewEvent(); err != nil {
		return f, err
	}
	f.done, err = d.ctx.NewEvent()
	return f, err
}

// close frees what newFlight got to. f may be nil.
func (f *flight) close() error {
	if f == nil {
		return nil
	}
	var errs []error
	if f.input != nil {
		errs = append(errs, f.input.pinned.Free())
	}
	if f.output != nil {
		errs = append(errs, f.output.pinned.Free())
	}
	for _, e := range []*cudadrv.Event{f.start, f.done} {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}

// Step computes one batch. It returns an error, having touched nothing, when the
// batch does not fit the device. After one that is
// backend.ErrDeviceLost no step succeeds.
func (d *Device) Step(b *backend.Batch) (*backend.Result, error) {
	if d.begun != d.ended {
		return nil, errors.New("cuda: Step while another step is under way")
	}
	if _, err := d.Begin(b); err != nil {
		return nil, err
	}
	return d.End()
}

// Begin starts a step. It returns an error, having touched nothing, when the batch
// does not fit the device.
func (d *Device) Begin(b *backend.Batch) (onDevice bool, err error) {
	if d.lost != nil {
		return false, d.lost
	}
	before := d.flights[(d.begun+1)%2]
	choices := 0
	switch d.begun - d.ended {
	case 2:
		return false, errors.New("cuda: two steps are under way")
	case 1:
		if !before.onDevice {
			return false, errors.New("cuda: the step under way needs the host")
		}
		choices = len(before.rows)
	}
	if err := b.Check(d.bounds(choices)); err != nil {
		return false, fmt.Errorf("cuda: %w", err)
	}
	for _, e := range b.Deltas {
		d.tables.Enter(e)
	}
	leave, err := d.ctx.Enter()
	if err != nil {
		return false, d.failed(err)
	}
	defer leave()
	if d.dirty {
		if err := errors.Join(d.resetWorkspaces(), d.stream.Wait()); err != nil {
			return false, d.failed(err)
		}
		d.dirty = false
	}
	f := d.flights[d.begun%2]
	if err := f.input.sendDeltas(d, b.Deltas); err != nil {
		return false, d.failed(err)
	}
	for i, s := range b.Seqs {
		if err := d.tables.Check(i, s); err != nil {
			return false, errors.Join(fmt.Errorf("cuda: %w", err), d.stream.Wait())
		}
	}
	if err := d.rules.place(d, b.Seqs); err != nil {
		return false, d.failed(err)
	}
	if err := f.begin(d, b); err != nil {
		return false, d.failed(err)
	}
	d.begun++
	return f.onDevice, nil
}

// begin adds the step to the stream.
func (f *flight) begin(d *Device, b *backend.Batch) error {
	f.batch = b
	f.rows = b.Rows[:min(len(b.Rows), d.buffers.logitRows)]
	f.input.arrange(d, &d.order, b)
	f.input.nameRows(d, b, f.rows, true)
	f.output.begin(len(b.Rows))
	f.onDevice = len(f.rows) == len(b.Rows) && !slices.Contains(f.input.samples.onHost, true) &&
		!slices.ContainsFunc(b.Rows, func(r backend.Row) bool { return r.KeepLogits || r.Sampler == nil })
	o := &d.order
	prefills := o.decodes < len(b.Seqs)
	f.shape = shape{rows: bucket(o.rows), logits: d.logitBucket(len(f.rows), prefills), decodes: o.decodes > 0, prefills: prefills}
	for _, add := range []func() error{ // none after one that failed: it would compute what is no step
		func() error { return f.start.Record(d.stream) },
		func() error { return f.input.upload(d) },
		func() error { return d.run(f.shape) },
		func() error { return f.output.download(d, len(f.rows)) },
		func() error { return f.done.Record(d.stream) },
	} {
		if err := add(); err != nil {
			return fmt.Errorf("beginning a %v: %w", f.shape, err)
		}
	}
	return nil
}

// End waits for the oldest step and answers it. Logits beyond the rows that are
// computed at a time, which only the whole of a long prompt's can be, follow piece
// by piece.
func (d *Device) End() (*backend.Result, error) {
	if d.begun == d.ended {
		return nil, errors.New("cuda: no step is under way")
	}
	f := d.flights[d.ended%2]
	d.ended++
	if d.lost != nil {
		return nil, d.lost
	}
	leave, err := d.ctx.Enter()
	if err != nil {
		return nil, d.failed(err)
	}
	defer leave()
	if err := f.end(d); err != nil {
		return nil, d.failed(fmt.Errorf("ending a %v: %w", f.shape, err))
	}
	return &f.output.result, nil
}

func (f *flight) end(d *Device) error {
	if err := f.done.Wait(); err != nil {
		return err
	}
	busy, err := f.done.Since(f.start)
	if err != nil {
		return err
	}
	f.output.result.Busy = busy
	if err := f.output.answer(d, f.rows, f.input.samples.onHost, 0); err != nil {
		return err
	}
	for from := len(f.rows); from < len(f.batch.Rows); from += d.buffers.logitRows {
		rows := f.batch.Rows[from:min(from+d.buffers.logitRows, len(f.batch.Rows))]
		f.input.nameRows(d, f.batch, rows, false)
		p := pass{d: d}
		p.do(f.input.upload(d))
		p.logits(d.logitBucket(len(rows), false))
		p.do(f.output.download(d, len(rows)))
		p.do(d.stream.Wait())
		if p.err != nil {
			return p.err
		}
		if err := f.output.answer(d, rows, f.input.samples.onHost, from); err != nil {
			return err
		}
	}
	return nil
}

// failed remembers what an error of the driver means for the steps to come.
func (d *Device) failed(err error) error {
	d.dirty = true
	var e *cudadrv.Error
	if errors.As(err, &e) && e.DeviceLost() {
		d.lost = fmt.Errorf("cuda: %w: %w", backend.ErrDeviceLost, err)
		return d.lost
	}
	return fmt.Errorf("cuda: %w", err)
}

// bounds are what a batch may ask for beside a step whose choices it may name.
func (d *Device) bounds(choices int) backend.Bounds {
	o := backend.Bounds{
		Tokens: d.opts.MaxBatchTokens, Sequences: d.opts.MaxSequences, Vocab: d.cfg.Vocab, Heads: d.cfg.Layers * d.cfg.KVHeads,
		Context: d.maxPositions(), Choices: choices,
	}
	if d.pool != nil {
		o.Pages = d.pool.pages
	}
	return o
}
