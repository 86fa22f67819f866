//go:build cuda

package cuda

import (
	"errors"
	"math"
	"unsafe"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/sample"
)

// The kernels read adjustments as samplers hand them out.
var _ = cudakernels.Adjustment(sample.Adjustment{})

// A step has room for so many adjustments of logits a sequence, on the average, and
// for as many as a long prompt's with the repetition penalty, each distinct token of
// which is one. Rows that find none left are sampled by the host.
const (
	adjustmentsASequence = 4096
	minAdjustments       = 1 << 16
)

// samples say how the tokens of the rows are chosen. The rows travel with the rest of
// the input; adjustments and masks apart from it, since most steps have none.
type samples struct {
	rows        []cudakernels.SampleRow
	adjustments []sample.Adjustment
	masks       []uint32 // [logitRows][words]
	words       int      // of a mask

	onHost           []bool // by row: the host samples it
	adjusted, masked int    // adjustments and masks in use
}

func (d *Device) maxAdjustments() int {
	return max(adjustmentsASequence*d.opts.MaxSequences, minAdjustments)
}

// maskWords returns the words of a mask of the whole vocabulary.
func (d *Device) maskWords() int { return (d.cfg.Vocab + 31) / 32 }

// nameRows names the rows whose logits are computed next, and says how their tokens are
// chosen. The bucket is filled up with row 0 and greedy choices. When a step is begun,
// named tells that the batch's names of tokens are of choices that the samplers have
// not been told.
func (in *input) nameRows(d *Device, b *backend.Batch, rows []backend.Row, named bool) {
	clear(in.index)
	s := &in.samples
	clear(s.rows)
	s.adjusted, s.masked, s.onHost = 0, 0, s.onHost[:0]
	for i, r := range rows {
		row := d.order.row(r)
		in.index[i] = row
		if r.Sampler == nil {
			s.onHost = append(s.onHost, false)
			continue
		}
		pending := 0
		if seq := b.Seqs[r.Seq]; named && b.Tokens[seq.Offset+r.Token] < 0 {
			pending = 1
		}
		s.onHost = append(s.onHost, !in.sample(&s.rows[i], r, pending, in.at(in.inputLayout.tokens)+4*cudakernels.Ptr(row)))
	}
}

// sample says how the token of a row is chosen whose own token is at an address. It
// reports whether there is room for that.
func (in *input) sample(to *cudakernels.SampleRow, r backend.Row, pending int, token cudakernels.Ptr) bool {
	s, l := &in.samples, in.inputLayout
	n := r.Sampler.Adjustments(pending)
	if n > len(s.adjustments)-s.adjusted {
		return false
	}
	p := r.Sampler.Params()
	penalties, counts := r.Sampler.Penalties()
	*to = cudakernels.SampleRow{
		Uniform: r.Sampler.Uniform(pending), Temperature: p.Temperature, TopP: p.TopP, MinP: p.MinP, TopK: int32(min(p.TopK, math.MaxInt32)),
		Repetition: penalties.Repetition, Frequency: penalties.Frequency, Presence: penalties.Presence,
	}
	if n > 0 {
		r.Sampler.CopyAdjustments(s.adjustments[s.adjusted:s.adjusted+n], pending)
		to.Adjustments, to.Adjusted = in.at(l.adjustments)+cudakernels.Ptr(s.adjusted)*adjustmentBytes, int32(n)
		s.adjusted += n
	}
	if counts && pending > 0 {
		to.Pending = token // the row's own token is the one that was chosen last
	}
	if r.Mask != nil {
		at := s.masked * s.words
		to.Mask, to.MaskWords = in.at(l.masks)+4*cudakernels.Ptr(at), int32(copy(s.masks[at:at+s.words], r.Mask))
		s.masked++
	}
	if describes(p) {
		to.Logprobs = 1 + int32(alternatives(p))
	}
	return true
}

const adjustmentBytes = cudakernels.Ptr(unsafe.Sizeof(sample.Adjustment{}))

// describes reports whether log-probabilities are wanted, and alternatives of how many
// tokens beside the chosen one.
func describes(p sample.Params) bool   { return p.Logprobs || p.TopLogprobs > 0 }
func alternatives(p sample.Params) int { return min(max(p.TopLogprobs, 0), cudakernels.TopLogprobs) }

// uploadSamples adds the copies of adjustments and masks to the stream.
func (in *input) uploadSamples(d *Device) error {
	s, l := &in.samples, in.inputLayout
	var errs []error
	if n := s.adjusted * int(adjustmentBytes); n > 0 {
		errs = append(errs, d.stream.Upload(cudadrv.Ptr(in.at(l.adjustments)), in.pinned, l.adjustments, n))
	}
	if n := 4 * s.masked * s.words; n > 0 {
		errs = append(errs, d.stream.Upload(cudadrv.Ptr(in.at(l.masks)), in.pinned, l.masks, n))
	}
	return errors.Join(errs...)
}
