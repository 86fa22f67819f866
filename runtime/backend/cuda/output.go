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
// logit row.
type output struct {
	pinned  *cudadrv.Pinned
	choices []cudakernels.Choice // [logitRows]
	result  backend.Result       // valid until the step after the next begins
	need    []int                // rows whose logits the host needs
}

func (d *Device) newOutput() (*output, error) {
	n := d.buffers.logitRows
	p, err := d.ctx.NewPinned(n * int(unsafe.Sizeof(cudakernels.Choice{})))
	if err != nil {
		return nil, err
	}
	return &output{pinned: p, choices: cudadrv.PinnedSlice[cudakernels.Choice](p, 0, n)}, nil
}

// hostLogits is pinned memory for the logits that are wanted or that the host samples
// from: float32 [logitRows][vocab], made when a step first needs it, which most servers'
// never do. Steps share it: one that needs it is alone under way when it is answered.
type hostLogits struct{ pinned *cudadrv.Pinned }

// download waits for the logits of the rows from low (included) to high (excluded), and
// returns those of all rows.
func (h *hostLogits) download(d *Device, low, high int) ([]float32, error) {
	vocab, rows := d.cfg.Vocab, d.buffers.logitRows
	if h.pinned == nil {
		var err error
		if h.pinned, err = d.ctx.NewPinned(4 * rows * vocab); err != nil {
			return nil, err
		}
	}
	at := 4 * low * vocab
	err := d.stream.Download(h.pinned, at, cudadrv.Ptr(d.buffers.logits)+cudadrv.Ptr(at), 4*(high-low)*vocab)
	if err = errors.Join(err, d.stream.Wait()); err != nil {
		return nil, err
	}
	return cudadrv.PinnedSlice[float32](h.pinned, 0, rows*vocab), nil
}

func (h *hostLogits) close() error {
	if h.pinned == nil {
		return nil
	}
	return h.pinned.Free()
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
	var all []float32
	if n := len(o.need); n > 0 { // one copy, with what lies between
		var err error
		if all, err = d.hostLogits.download(d, o.need[0], o.need[n-1]+1); err != nil {
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
		logits := all[i*vocab : (i+1)*vocab]
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
