//go:build cuda

package cuda

import (
	"errors"
	"slices"
	"unsafe"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/sample"
)

// output is what a step copies from the device to pinned memory: the choice of every
// logit row, and the logits where they are wanted or the host must choose.
type output struct {
	pinned  *cudadrv.Pinned
	choices []cudakernels.Choice // [logitRows]
	logits  []float32            // [logitRows][vocab]

	logitsOffset int
	result       backend.Result // valid until the step after the next begins
	need         []int          // rows whose logits the host needs
}

func (d *Device) newOutput() (*output, error) {
	n := d.buffers.logitRows
	var size int
	choices := section[cudakernels.Choice](&size, n)
	logits := section[float32](&size, n*d.cfg.Vocab)
	p, err := d.ctx.NewPinned(size)
	if err != nil {
		return nil, err
	}
	return &output{
		pinned: p, logitsOffset: logits,
		choices: cudadrv.PinnedSlice[cudakernels.Choice](p, choices, n),
		logits:  cudadrv.PinnedSlice[float32](p, logits, n*d.cfg.Vocab),
	}, nil
}

// begin empties the result for that many rows.
func (o *output) begin(rows int) {
	o.result.Choices = slices.Grow(o.result.Choices[:0], rows)[:rows]
	o.result.Logits = slices.Grow(o.result.Logits[:0], rows)[:rows]
	clear(o.result.Choices)
	clear(o.result.Logits)
}

// download adds the copy of the choices of so many rows to the stream.
func (o *output) download(d *Device, rows int) error {
	if rows == 0 {
		return nil
	}
	return d.stream.Download(o.pinned, 0, cudadrv.Ptr(d.buffers.choices), rows*int(unsafe.Sizeof(o.choices[0])))
}

// answer answers rows, the first of which is the batch's row number first, from
// logits in their order. The device has computed them.
func (o *output) answer(d *Device, rows []backend.Row, onHost []bool, first int) error {
	o.need = o.need[:0]
	for i, r := range rows {
		if r.KeepLogits || onHost[i] {
			o.need = append(o.need, i)
		}
	}
	vocab := d.cfg.Vocab
	if n := len(o.need); n > 0 { // one copy, with what lies between
		low, high := o.need[0], o.need[n-1]
		err := d.stream.Download(o.pinned, o.logitsOffset+4*low*vocab, cudadrv.Ptr(d.buffers.logits)+cudadrv.Ptr(4*low*vocab), 4*(high-low+1)*vocab)
		if err = errors.Join(err, d.stream.Wait()); err != nil {
			return err
		}
	}
	for i, r := range rows {
		if r.Sampler != nil && !onHost[i] {
			o.result.Choices[first+i] = choice(&o.choices[i], r.Sampler.Params())
			r.Sampler.Accept(o.choices[i].ID)
		}
	}
	parallel(len(o.need), func(n int) {
		i := o.need[n]
		logits := o.logits[i*vocab : (i+1)*vocab]
		if rows[i].KeepLogits {
			o.result.Logits[first+i] = slices.Clone(logits)
		}
		if onHost[i] {
			o.result.Choices[first+i] = rows[i].Sampler.Sample(logits, rows[i].Mask)
		}
	})
	return nil
}

// choice is what a sampler with these parameters tells of a choice of the device.
func choice(c *cudakernels.Choice, p sample.Params) sample.Choice {
	r := sample.Choice{ID: c.ID}
	if describes(p) {
		r.Logprob = c.Logprob
	}
	for _, top := range c.Tops[:alternatives(p)] {
		if top.ID < 0 { // the vocabulary has no more of them
			break
		}
		r.Top = append(r.Top, sample.Logprob(top))
	}
	return r
}
