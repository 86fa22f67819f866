//go:build cuda

package cuda

import (
	"errors"
	"slices"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/sample"
)

// output is what a step copies from the device to pinned memory: the token of every
// logit row with its log-probability, and the logits where the host must choose.
type output struct {
	pinned   *cudadrv.Pinned
	ids      []int32
	logprobs []float32
	logits   []float32 // [logitRows][vocab]

	choiceBytes  int // ids and logprobs
	logitsOffset int
	result       backend.Result // valid until the step after the next begins
	need         []int          // rows whose logits the host needs
	accepted     []int          // rows whose tokens the device picked
}

func (d *Device) newOutput() (*output, error) {
	n := d.buffers.logitRows
	var size int
	ids := section[int32](&size, n)
	logprobs := section[float32](&size, n)
	logits := section[float32](&size, n*d.cfg.Vocab)
	p, err := d.ctx.NewPinned(size)
	if err != nil {
		return nil, err
	}
	return &output{
		pinned: p, choiceBytes: logits, logitsOffset: logits,
		ids:      cudadrv.PinnedSlice[int32](p, ids, n),
		logprobs: cudadrv.PinnedSlice[float32](p, logprobs, n),
		logits:   cudadrv.PinnedSlice[float32](p, logits, n*d.cfg.Vocab),
	}, nil
}

// begin empties the result for the rows of a batch, of which so many are computed at
// a time. It reports whether the device chooses all tokens and the host needs no
// logits.
func (o *output) begin(b *backend.Batch, atATime int) bool {
	n := len(b.Rows)
	o.result.Choices = slices.Grow(o.result.Choices[:0], n)[:n]
	o.result.Logits = slices.Grow(o.result.Logits[:0], n)[:n]
	clear(o.result.Choices)
	clear(o.result.Logits)
	return n == atATime && !slices.ContainsFunc(b.Rows, func(r backend.Row) bool { return r.KeepLogits || !onDevice(r) })
}

// download adds the copy of all tokens and log-probabilities to the stream.
func (o *output) download(d *Device) error {
	return d.stream.Download(o.pinned, 0, cudadrv.Ptr(d.buffers.ids), o.choiceBytes)
}

// answer answers rows, the first of which is the batch's row number first, from
// logits in their order. The device has computed them.
func (o *output) answer(d *Device, rows []backend.Row, first int) error {
	o.need, o.accepted = o.need[:0], o.accepted[:0]
	for i, r := range rows {
		if r.KeepLogits || onHost(r) {
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
		if onDevice(r) {
			o.result.Choices[first+i] = sample.Choice{ID: o.ids[i]}
			if r.Sampler.Params().Logprobs {
				o.result.Choices[first+i].Logprob = o.logprobs[i]
			}
			o.accepted = append(o.accepted, i)
		}
	}
	parallel(len(o.need), func(n int) {
		i := o.need[n]
		r, logits := rows[i], o.logits[i*vocab:(i+1)*vocab]
		if r.KeepLogits {
			o.result.Logits[first+i] = slices.Clone(logits)
		}
		if onHost(r) {
			o.result.Choices[first+i] = r.Sampler.Sample(logits, r.Mask)
		}
	})
	for _, i := range o.accepted { // only now: it changes who samples
		rows[i].Sampler.Accept(o.result.Choices[first+i].ID)
	}
	return nil
}

// onDevice reports whether the device picks the row's token: no mask, nothing but
// temperature and truncation, and at most the token's own log-probability wanted.
func onDevice(r backend.Row) bool {
	return r.Sampler != nil && r.Mask == nil && r.Sampler.Params().TopLogprobs == 0 && r.Sampler.Unadjusted()
}

// onHost reports whether the host picks it.
func onHost(r backend.Row) bool { return r.Sampler != nil && !onDevice(r) }

// greedyBelow is the temperature below which sampling is greedy, as in package
// sample and in the kernels.
const greedyBelow = 1e-5

// draws reports whether some row's token is drawn on the device, and not the
// likeliest.
func draws(rows []backend.Row) bool {
	return slices.ContainsFunc(rows, func(r backend.Row) bool { return onDevice(r) && r.Sampler.Params().Temperature >= greedyBelow })
}
