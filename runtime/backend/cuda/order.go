//go:build cuda

package cuda

import (
	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
)

// order is the order in which the device takes a batch: sequences of one new token
// first, each in the row of its number, then the others. In the latter, rows and
// query tiles follow one another.
type order struct {
	decodes, rows, tiles int
	firstRow             []int32 // by sequence of the batch
}

// arrange lays a batch out in the input, in the order that it finds.
func (in *input) arrange(d *Device, o *order, b *backend.Batch) {
	o.decodes, o.rows, o.tiles = 0, 0, 0
	if cap(o.firstRow) < len(b.Seqs) {
		o.firstRow = make([]int32, len(b.Seqs))
	}
	o.firstRow = o.firstRow[:len(b.Seqs)]
	n := 0
	for _, decode := range [...]bool{true, false} {
		for i, s := range b.Seqs {
			if decode != (s.Len == 1) {
				continue
			}
			seq := cudakernels.Seq{
				Slot: int32(s.Slot), Row: int32(o.rows), Len: int32(s.Len), Start: int32(s.Start), Rules: d.rules.index(s.Layout),
				Floor: int32(s.Layout.FloorBlocks()), Total: int32(s.Layout.TotalBlocks()), Tile: -1,
			}
			if decode {
				o.decodes++
			} else {
				seq.Tile = int32(o.tiles)
				o.tiles += cudakernels.Tiles(s.Start, s.Len)
			}
			in.seqs[n] = seq
			o.firstRow[i] = int32(o.rows)
			for t, id := range b.Tokens[s.Offset : s.Offset+s.Len] {
				in.tokens[o.rows] = id
				in.rows[o.rows] = cudakernels.Row{Seq: int32(n), Pos: int32(s.Start + t)}
				o.rows++
			}
			n++
		}
	}
	for r := o.rows; r < bucket(o.rows); r++ {
		in.tokens[r], in.rows[r] = 0, cudakernels.Row{Seq: -1}
	}
	in.header[0] = cudakernels.Header{Decodes: int32(o.decodes), Seqs: int32(n), Rows: int32(o.rows)}
}

// row returns the row of the token that a batch's row names.
func (o *order) row(r backend.Row) int32 { return o.firstRow[r.Seq] + int32(r.Token) }
