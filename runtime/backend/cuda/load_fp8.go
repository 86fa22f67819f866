//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// matrix is the weights of a product on the device.
type matrix struct {
	at     cudakernels.Ptr // bfloat16 [n][k], or e4m3 codes [n][k] if there are scales
	scales cudakernels.Ptr // float32 [n], by which the codes of a row are multiplied; 0 for bfloat16
}

// projection loads projections, one below the other, as Options.Weights says.
func (l *loader) projection(layer int, roles ...model.Role) matrix {
	if l.d.opts.Weights != backend.WeightsFP8 {
		return matrix{at: l.matrix(layer, roles...)}
	}
	// The scales follow the codes in one allocation. Rows are a multiple of 16 bytes.
	tensors, codes := l.allocate(layer, roles, func(t weights.Tensor) int { return t.Elems() + 4*t.Shape[0] })
	if l.err != nil {
		return matrix{}
	}
	m := matrix{at: codes, scales: codes}
	for _, t := range tensors {
		m.scales += cudakernels.Ptr(t.Elems())
	}
	at := m
	for _, t := range tensors {
		rows, cols := t.Shape[0], t.Shape[1]
		// A scale needs its whole row.
		piece := max(stagingBytes/2/cols, 1)
		for from := 0; from < rows && l.err == nil; from += piece {
			l.quantize(at, t, from, min(from+piece, rows))
		}
		at.at += cudakernels.Ptr(rows * cols)
		at.scales += cudakernels.Ptr(4 * rows)
	}
	return m
}

// quantize brings rows of a tensor to the device as bfloat16 and turns them into
// codes there. to is where the tensor's first row goes.
func (l *loader) quantize(to matrix, t weights.Tensor, from, end int) {
	cols := t.Shape[1]
	first, n := from*cols, (end-from)*cols
	if t.Generated != nil {
		l.loaded(t, t.Type.RowBytes(n), l.d.generate(l.rows.Ptr(), t.Generated, first, n))
	} else {
		l.piece(l.rows.Ptr(), t, first, first+n)
	}
	if l.err == nil {
		l.err = launch(l.d, &cudakernels.QuantizeRows{
			X: cudakernels.Ptr(l.rows.Ptr()), Codes: to.at + cudakernels.Ptr(first), Scales: to.scales + cudakernels.Ptr(4*from),
			Rows: int64(end - from), Cols: int64(cols),
		}, false)
	}
}

// makeRows allocates the memory in which pieces wait to be quantised; freeRows
// gives it back.
func (l *loader) makeRows() (err error) {
	if l.d.opts.Weights == backend.WeightsFP8 {
		l.rows, err = l.d.ctx.Alloc(stagingBytes)
	}
	return err
}

func (l *loader) freeRows(err error) error {
	if l.rows == nil {
		return err
	}
	return errors.Join(err, l.rows.Free())
}

// supportedFP8 refuses shapes of e4m3 weights that the products do not take.
func supportedFP8(m *model.Model) error {
	const multiple = 16 // cuBLASLt's matrices of bytes
	for what, n := range map[string]int{"hidden": m.Hidden, "feed-forward": m.FFN, "attention": m.Heads * m.HeadDim} {
		if n%multiple != 0 {
			return fmt.Errorf("%w: fp8 weights with a %s size of %d; it must be a multiple of %d", backend.ErrNotSupported, what, n, multiple)
		}
		if n > mostPanelElems/panelRows {
			return fmt.Errorf("%w: fp8 weights with a %s size of %d; at most %d", backend.ErrNotSupported, what, n, mostPanelElems/panelRows)
		}
	}
	return nil
}
