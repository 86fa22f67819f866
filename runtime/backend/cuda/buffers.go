//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/plan"
)

// buffers are the device memory of a step. The rows of all but logits are those
// of the largest batch, rounded up to a bucket.
type buffers struct {
	table  cudakernels.Ptr // int32 [slots][heads][maxBlocks]
	angles cudakernels.Ptr // float32 [context][pairs][2]

	x       cudakernels.Ptr // float32 [rows][hidden], the residual stream
	norm    cudakernels.Ptr // bfloat16 [rows][hidden]
	squares cudakernels.Ptr // of the rows of x, for products of few rows
	qkv     cudakernels.Ptr // bfloat16 [rows][(heads+2*kvHeads)*headDim]
	q       cudakernels.Ptr // bfloat16 [sequences][heads][stored head dim]
	qTiles  cudakernels.Ptr
	att     cudakernels.Ptr // bfloat16 [rows][heads*headDim]
	delta   cudakernels.Ptr // bfloat16 [rows][hidden], to be added to x
	gateUp  cudakernels.Ptr // bfloat16 [rows][2*ffn]
	act     cudakernels.Ptr // bfloat16 [rows][ffn]

	decodePlan, prefillPlan           cudakernels.Ptr
	decodePlanStride, prefillStride   int64 // bytes a layer
	decodeWorkspace                   [3]cudakernels.Ptr
	decodeWorkspaceSize               int64
	prefillWorkspace                  cudakernels.Ptr
	prefillWorkspaceSize              int64
	maxItems                          int64           // of the prefill attention, a layer
	logits                            cudakernels.Ptr // float32 [logitRows][vocab]
	ids                               cudakernels.Ptr // int32 [logitRows], the tokens chosen
	choices                           cudakernels.Ptr // Choice [logitRows]
	rows, logitRows, tiles, maxBlocks int
}

// alloc is one buffer to be made.
type alloc struct {
	to    *cudakernels.Ptr
	bytes int
}

// makeBuffers allocates and initialises everything that a step needs.
func (d *Device) makeBuffers() error {
	c, b, o := &d.cfg, &d.buffers, &d.opts
	b.rows = bucket(o.MaxBatchTokens)
	b.logitRows = bucket(max(o.MaxSequences, minLogitRows))
	b.maxBlocks = plan.Blocks(d.maxPositions())
	// A prefilling sequence has at least two tokens and, n tokens long, at most
	// n/64 + 2 tiles.
	prefills := min(o.MaxSequences, max(o.MaxBatchTokens/2, 1))
	b.tiles = o.MaxBatchTokens/plan.BlockSize + 2*prefills
	maxItems := cudakernels.MaxPrefillItems(d.shapes, b.tiles, prefills, c.KVHeads, c.Group())
	b.maxItems = int64(maxItems)
	b.decodePlanStride = int64(cudakernels.DecodePlanBytes(o.MaxSequences, c.KVHeads))
	b.prefillStride = int64(cudakernels.PrefillPlanBytes(maxItems))
	b.decodeWorkspaceSize = int64(cudakernels.DecodeWorkspaceBytes(d.shapes, d.pageType(), c.Group(), c.HeadDim))
	b.prefillWorkspaceSize = int64(cudakernels.PrefillWorkspaceBytes(d.shapes, maxItems, c.HeadDim))
	stored, heads := cudakernels.StoredHeadDim(c.HeadDim), c.Layers*c.KVHeads

	for _, a := range []alloc{
		{&b.table, cudakernels.TableBytes(o.MaxSequences, heads, b.maxBlocks)},
		{&b.angles, d.maxPositions() * len(c.Rope.Frequencies) * 8},
		{&b.x, 4 * b.rows * c.Hidden},
		{&b.norm, 2 * max(b.rows, b.logitRows) * c.Hidden},
		{&b.squares, cudakernels.ProductSquaresBytes(d.shapes)},
		{&b.qkv, 2 * b.rows * (c.Heads + 2*c.KVHeads) * c.HeadDim},
		{&b.q, 2 * o.MaxSequences * c.Heads * stored},
		{&b.qTiles, cudakernels.QueryTileBytes(b.tiles, c.Heads, c.HeadDim)},
		{&b.att, 2 * b.rows * c.Heads * c.HeadDim},
		{&b.delta, 2 * b.rows * c.Hidden},
		{&b.gateUp, 4 * b.rows * c.FFN},
		{&b.act, 2 * b.rows * c.FFN},
		{&b.decodePlan, int(b.decodePlanStride) * c.Layers},
		{&b.prefillPlan, int(b.prefillStride) * c.Layers},
		{&b.decodeWorkspace[0], int(b.decodeWorkspaceSize)},
		{&b.decodeWorkspace[1], int(b.decodeWorkspaceSize)},
		{&b.decodeWorkspace[2], int(b.decodeWorkspaceSize)},
		{&b.prefillWorkspace, int(b.prefillWorkspaceSize)},
		{&b.logits, 4 * b.logitRows * c.Vocab},
		{&b.ids, 4 * b.logitRows},
		{&b.choices, b.logitRows * int(unsafe.Sizeof(cudakernels.Choice{}))},
	} {
		p, err := d.arena.Alloc(int64(a.bytes))
		if err != nil {
			return fmt.Errorf("buffers for steps of %d tokens and %d sequences: %w", o.MaxBatchTokens, o.MaxSequences, err)
		}
		*a.to = cudakernels.Ptr(p)
		// Rows that pad a bucket are computed, too; they should hold numbers.
		if err := d.stream.Fill(p, 0, int64(a.bytes)); err != nil {
			return err
		}
	}
	if err := d.resetWorkspaces(); err != nil {
		return err
	}
	if err := d.uploadAngles(); err != nil {
		return err
	}
	if err := d.inputs.layOut(d); err != nil {
		return err
	}
	for i := range d.flights {
		var err error
		if d.flights[i], err = d.newFlight(); err != nil {
			return err
		}
	}
	d.tables = backend.NewPageTables(o.MaxSequences, heads)
	return d.rules.init(d, heads)
}

// minLogitRows is the least number of logit rows that are computed at a time: a
// prompt whose every logit is wanted should not take them one by one.
const minLogitRows = 16

// maxPositions bounds the positions of tokens, and with them the page tables.
func (d *Device) maxPositions() int {
	if n := d.opts.MaxContext; n > 0 {
		return n
	}
	return d.cfg.Context
}

// resetWorkspaces brings the workspaces of the attention into the state that it
// expects and leaves.
func (d *Device) resetWorkspaces() error {
	b := &d.buffers
	for _, w := range b.decodeWorkspace {
		if err := d.stream.Fill(cudadrv.Ptr(w), 0xff, b.decodeWorkspaceSize); err != nil {
			return err
		}
	}
	return d.stream.Fill(cudadrv.Ptr(b.prefillWorkspace), 0, b.prefillWorkspaceSize)
}

// uploadAngles computes cosine and sine of every pair at every position, in
// float64 as the reference does.
func (d *Device) uploadAngles() (err error) {
	r := &d.cfg.Rope
	pairs := len(r.Frequencies)
	staging, err := d.ctx.NewPinned(8 * pairs * d.maxPositions())
	if err != nil {
		return err
	}
	defer func() {
		if freeErr := staging.Free(); err == nil {
			err = freeErr
		}
	}()
	angles := cudadrv.PinnedSlice[float32](staging, 0, 2*pairs*d.maxPositions())
	parallel(d.maxPositions(), func(pos int) {
		row := angles[2*pairs*pos:]
		for i, f := range r.Frequencies {
			sin, cos := math.Sincos(float64(pos) * f)
			row[2*i], row[2*i+1] = float32(cos*r.Scale), float32(sin*r.Scale)
		}
	})
	if err := d.stream.Upload(cudadrv.Ptr(d.buffers.angles), staging, 0, 4*len(angles)); err != nil {
		return err
	}
	return d.stream.Wait()
}

// rowBucket is what larger numbers of rows are rounded up to: the height of a tile of
// the products.
const rowBucket = 64

// RowMultiple tells the scheduler what the rows of a step had best be a multiple of.
func (d *Device) RowMultiple() int { return rowBucket }

// bucket rounds a number of rows up to one for which products and graphs are
// made: powers of two up to rowBucket, multiples of it beyond.
func bucket(n int) int {
	b := 1
	for b < n && b < rowBucket {
		b *= 2
	}
	if n <= b {
		return b
	}
	return (n + rowBucket - 1) / rowBucket * rowBucket
}

// logitBucket is bucket for rows of logits, of which there may be none. Beside rows of
// prompts a few cost as much as rowBucket: fewer buckets mean fewer graphs.
func (d *Device) logitBucket(n int, prefills bool) int {
	switch {
	case n == 0:
		return 0
	case prefills && n > 1:
		return min(bucket(max(n, rowBucket)), d.buffers.logitRows)
	}
	return bucket(n)
}
