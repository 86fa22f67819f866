//go:build cuda

package cuda

import (
	"errors"
	"unsafe"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/sample"
)

// inputLayout says where the parts of a step's input lie, in pinned host memory and,
// alike, on the device, at addresses that never change.
type inputLayout struct {
	header, seqs, rows, tokens, index, samples int
	bytes                                      int // of all these
	// The deltas travel apart, in as many pieces as they need, and what only some
	// samplers need does.
	deltaHeader, deltas, adjustments, masks, size int

	device cudakernels.Ptr
}

// deltaPiece is how many page-table entries are sent at a time: a step of a full
// batch rarely has more, and a restored sequence can have any number.
const deltaPiece = 4096

// section lays n elements out in pinned memory behind what is there.
func section[T any](size *int, n int) (offset int) {
	var t T
	offset = *size
	*size += (n*int(unsafe.Sizeof(t)) + 63) / 64 * 64
	return offset
}

// layOut allocates the device's side of the input.
func (l *inputLayout) layOut(d *Device) error {
	b := &d.buffers
	l.header = section[cudakernels.Header](&l.size, 1)
	l.seqs = section[cudakernels.Seq](&l.size, d.opts.MaxSequences)
	l.rows = section[cudakernels.Row](&l.size, b.rows)
	l.tokens = section[int32](&l.size, b.rows)
	l.index = section[int32](&l.size, b.logitRows)
	l.samples = section[cudakernels.SampleRow](&l.size, b.logitRows)
	l.bytes = l.size
	l.deltaHeader = section[cudakernels.Header](&l.size, 1)
	l.deltas = section[cudakernels.TableDelta](&l.size, deltaPiece)
	l.adjustments = section[cudakernels.Adjustment](&l.size, d.maxAdjustments())
	l.masks = section[uint32](&l.size, b.logitRows*d.maskWords())
	p, err := d.arena.Alloc(int64(l.size))
	l.device = cudakernels.Ptr(p)
	return err
}

// at returns the device's address of a part.
func (l *inputLayout) at(offset int) cudakernels.Ptr { return l.device + cudakernels.Ptr(offset) }

// input is the host's side of a step's input. The device reads it until the step is
// done.
type input struct {
	*inputLayout
	pinned *cudadrv.Pinned

	header  []cudakernels.Header // 1
	seqs    []cudakernels.Seq    // MaxSequences
	rows    []cudakernels.Row    // of the largest bucket
	tokens  []int32              // alike
	index   []int32              // rows whose logits are wanted
	samples samples              // how their tokens are chosen

	deltaHeader []cudakernels.Header // 1
	deltas      []cudakernels.TableDelta
}

func (d *Device) newInput() (*input, error) {
	b, l := &d.buffers, &d.inputs
	p, err := d.ctx.NewPinned(l.size)
	if err != nil {
		return nil, err
	}
	return &input{
		inputLayout: l, pinned: p,
		header: cudadrv.PinnedSlice[cudakernels.Header](p, l.header, 1),
		seqs:   cudadrv.PinnedSlice[cudakernels.Seq](p, l.seqs, d.opts.MaxSequences),
		rows:   cudadrv.PinnedSlice[cudakernels.Row](p, l.rows, b.rows),
		tokens: cudadrv.PinnedSlice[int32](p, l.tokens, b.rows),
		index:  cudadrv.PinnedSlice[int32](p, l.index, b.logitRows),
		samples: samples{
			rows:        cudadrv.PinnedSlice[cudakernels.SampleRow](p, l.samples, b.logitRows),
			adjustments: cudadrv.PinnedSlice[sample.Adjustment](p, l.adjustments, d.maxAdjustments()),
			masks:       cudadrv.PinnedSlice[uint32](p, l.masks, b.logitRows*d.maskWords()),
			words:       d.maskWords(),
		},
		deltaHeader: cudadrv.PinnedSlice[cudakernels.Header](p, l.deltaHeader, 1),
		deltas:      cudadrv.PinnedSlice[cudakernels.TableDelta](p, l.deltas, deltaPiece),
	}, nil
}

// upload adds the copy of everything but the deltas to the stream.
func (in *input) upload(d *Device) error {
	return errors.Join(d.stream.Upload(cudadrv.Ptr(in.device), in.pinned, 0, in.bytes), in.uploadSamples(d))
}

// sendDeltas changes the page tables on the device.
func (in *input) sendDeltas(d *Device, deltas []backend.TableDelta) error {
	for first := true; len(deltas) > 0; first = false {
		if !first { // the piece before must be copied before it is overwritten
			if err := d.stream.Wait(); err != nil {
				return err
			}
		}
		n := min(len(deltas), deltaPiece)
		for i, e := range deltas[:n] {
			// The kernel takes the entries in any order: one that is entered twice is
			// sent twice with its last page.
			in.deltas[i] = cudakernels.TableDelta{Slot: e.Slot, Head: e.Head, Block: e.Block, Page: d.tables.Page(e)}
		}
		deltas = deltas[n:]
		in.deltaHeader[0] = cudakernels.Header{Deltas: int32(n)}
		l := in.inputLayout
		size := l.deltas - l.deltaHeader + n*int(unsafe.Sizeof(in.deltas[0]))
		if err := d.stream.Upload(cudadrv.Ptr(in.at(l.deltaHeader)), in.pinned, l.deltaHeader, size); err != nil {
			return err
		}
		if err := launch(d, &cudakernels.ScatterPages{
			Header: in.at(l.deltaHeader), Deltas: in.at(l.deltas), Table: d.buffers.table,
			Heads: int64(d.cfg.Layers * d.cfg.KVHeads), MaxBlocks: int64(d.buffers.maxBlocks),
		}, false); err != nil {
			return err
		}
	}
	return nil
}
