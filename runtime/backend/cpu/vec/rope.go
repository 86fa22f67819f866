package vec

import (
	"errors"
	"fmt"
	"math"

	"github.com/moaserve/moaserve/runtime/model"
)

// Rope rotates queries and keys by their position. It keeps the sines and
// cosines of every position up to the largest asked for.
//
// Grow must not run beside Rotate; Rotate may be called from any number of
// goroutines.
type Rope struct {
	ops         Ops
	frequencies []float64
	scale       float64
	interleaved bool
	headDim     int
	// chunks hold ropeChunk positions each: for every position the cosines of
	// all pairs, then the sines, both multiplied by scale.
	chunks [][]float32
}

// ropeChunk is the number of positions by which the table grows: 256 kB at 32
// pairs, a few tens of milliseconds of work.
const ropeChunk = 1024

// NewRope returns the rotation of heads with headDim dimensions.
func (o Ops) NewRope(r model.Rope, headDim int) (*Rope, error) {
	pairs := len(r.Frequencies)
	if pairs == 0 || 2*pairs > headDim {
		return nil, fmt.Errorf("rope: %d frequencies do not fit a head of %d dimensions", pairs, headDim)
	}
	if r.Scale == 0 {
		return nil, errors.New("rope: the scale is 0; it is 1 when nothing is scaled")
	}
	return &Rope{
		ops: o, frequencies: r.Frequencies, scale: r.Scale, interleaved: r.Interleaved, headDim: headDim,
	}, nil
}

// Grow makes sure that positions 0 to positions-1 are in the table.
func (r *Rope) Grow(positions int) {
	pairs := len(r.frequencies)
	for len(r.chunks)*ropeChunk < positions {
		first := len(r.chunks) * ropeChunk
		chunk := make([]float32, ropeChunk*2*pairs)
		for i := range ropeChunk {
			row := chunk[i*2*pairs:]
			for j, f := range r.frequencies {
				sin, cos := math.Sincos(float64(first+i) * f)
				row[j] = float32(cos * r.scale)
				row[pairs+j] = float32(sin * r.scale)
			}
		}
		r.chunks = append(r.chunks, chunk)
	}
}

// Rotate rotates one token's heads in place. x holds whole heads, one after the
// other; position is below what Grow was last called with.
func (r *Rope) Rotate(x []float32, position int) {
	pairs := len(r.frequencies)
	row := r.chunks[position/ropeChunk][position%ropeChunk*2*pairs:]
	cos, sin := row[:pairs], row[pairs:2*pairs]
	for ; len(x) >= r.headDim; x = x[r.headDim:] {
		head := x[:2*pairs]
		switch {
		case r.interleaved && r.ops.avx2 && pairs%4 == 0:
			rotateInterleavedAVX2(&head[0], &cos[0], &sin[0], pairs)
		case r.interleaved:
			rotateInterleaved(head, cos, sin)
		case r.ops.avx2 && pairs%lanes == 0:
			rotateHalvesAVX2(&head[0], &cos[0], &sin[0], pairs)
		default:
			rotateHalves(head, cos, sin)
		}
	}
}

func rotateInterleaved(head, cos, sin []float32) {
	for i := range cos {
		a, b := head[2*i], head[2*i+1]
		head[2*i] = a*cos[i] - b*sin[i]
		head[2*i+1] = b*cos[i] + a*sin[i]
	}
}

func rotateHalves(head, cos, sin []float32) {
	low, high := head[:len(cos)], head[len(cos):]
	for i := range cos {
		a, b := low[i], high[i]
		low[i] = a*cos[i] - b*sin[i]
		high[i] = b*cos[i] + a*sin[i]
	}
}
