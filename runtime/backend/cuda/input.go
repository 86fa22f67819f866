//go:build cuda

package cuda

import (
	"errors"
	"unsafe"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// input is what a step copies to the device: pinned host memory and its image on
// the device, laid out alike, at addresses that never change.
type input struct {
	pinned *cudadrv.Pinned
	device cudakernels.Ptr

	header  []cudakernels.Header // 1
	seqs    []cudakernels.Seq    // MaxSequences
	rows    []cudakernels.Row    // of the largest bucket
	tokens  []int32
	index   []int32                 // rows whose logits are wanted
	samples []cudakernels.SampleRow // how their tokens are drawn
	bytes   int                     // of all these

	seqsAt, rowsAt, tokensAt, indexAt, samplesAt cudakernels.Ptr

	// The deltas travel apart, in as many pieces as they need.
	deltaHeader []cudakernels.Header // 1
	deltas      []cudakernels.TableDelta
	deltaOffset int
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

func (d *Device) newInput() (*input, error) {
	b := &d.buffers
	var size int
	header := section[cudakernels.Header](&size, 1)
	seqs := section[cudakernels.Seq](&size, d.opts.MaxSequences)
	rows := section[cudakernels.Row](&size, b.rows)
	tokens := section[int32](&size, b.rows)
	index := section[int32](&size, b.logitRows)
	samples := section[cudakernels.SampleRow](&size, b.logitRows)
	in := &input{bytes: size}
	in.deltaOffset = section[cudakernels.Header](&size, 1)
	deltas := section[cudakernels.TableDelta](&size, deltaPiece)

	p, err := d.arena.Alloc(int64(size))
	if err != nil {
		return nil, err
	}
	if in.pinned, err = d.ctx.NewPinned(size); err != nil {
		return nil, err
	}
	in.device = cudakernels.Ptr(p)
	in.header = cudadrv.PinnedSlice[cudakernels.Header](in.pinned, header, 1)
	in.seqs = cudadrv.PinnedSlice[cudakernels.Seq](in.pinned, seqs, d.opts.MaxSequences)
	in.rows = cudadrv.PinnedSlice[cudakernels.Row](in.pinned, rows, b.rows)
	in.tokens = cudadrv.PinnedSlice[int32](in.pinned, tokens, b.rows)
	in.index = cudadrv.PinnedSlice[int32](in.pinned, index, b.logitRows)
	in.samples = cudadrv.PinnedSlice[cudakernels.SampleRow](in.pinned, samples, b.logitRows)
	in.samplesAt = in.device + cudakernels.Ptr(samples)
	in.deltaHeader = cudadrv.PinnedSlice[cudakernels.Header](in.pinned, in.deltaOffset, 1)
	in.deltas = cudadrv.PinnedSlice[cudakernels.TableDelta](in.pinned, deltas, deltaPiece)
	in.seqsAt, in.rowsAt = in.device+cudakernels.Ptr(seqs), in.device+cudakernels.Ptr(rows)
	in.tokensAt, in.indexAt = in.device+cudakernels.Ptr(tokens), in.device+cudakernels.Ptr(index)
	return in, nil
}

// memory returns the pinned memory; nil when the input was never made.
func (in *input) memory() *cudadrv.Pinned {
	if in == nil {
		return nil
	}
	return in.pinned
}

// upload adds the copy of everything but the deltas to the stream.
func (in *input) upload(d *Device) error {
	return d.stream.Upload(cudadrv.Ptr(in.device), in.pinned, 0, in.bytes)
}

// sendDeltas changes the page tables on the device.
func (d *Device) sendDeltas(deltas []backend.TableDelta) error {
	in := d.input
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
			in.deltas[i] = cudakernels.TableDelta{Slot: e.Slot, Head: e.Head, Block: e.Block, Page: d.tables.page(e)}
		}
		deltas = deltas[n:]
		in.deltaHeader[0] = cudakernels.Header{Deltas: int32(n)}
		at := in.device + cudakernels.Ptr(in.deltaOffset)
		err := errors.Join(
			d.stream.Upload(cudadrv.Ptr(at), in.pinned, in.deltaOffset, int(unsafe.Sizeof(in.deltaHeader[0]))+n*int(unsafe.Sizeof(in.deltas[0]))),
			launch(d, &cudakernels.ScatterPages{
				Header: at, Deltas: at + cudakernels.Ptr(unsafe.Sizeof(in.deltaHeader[0])), Table: d.buffers.table,
				Heads: int64(d.tables.heads), MaxBlocks: int64(d.buffers.maxBlocks),
			}, false))
		if err != nil {
			return err
		}
	}
	return nil
}
