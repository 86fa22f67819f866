//go:build cuda

package cuda

import (
	"fmt"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// fp8 is what products with e4m3 weights need besides. There are three ways.
//
// With activations of 8 bits, the inputs become e4m3, with a scale a row, and
// cuBLASLt multiplies codes.
//
// With bfloat16 activations, the inputs of up to mostSplitRows rows become twice as
// many rows of codes, which are the same numbers: as long as reading the weights is
// most of the work, the second half costs little. For more rows, and where there are
// no e4m3 products, the weights become bfloat16 again, as much of them at a time as
// the panel holds.
type fp8 struct {
	codes, scales cudakernels.Ptr // of the inputs: [rows][k], float32 [rows]; 0 without e4m3 products
	sums          cudakernels.Ptr // of inputs that were split, float32 [2*mostSplitRows][n]; 0 unless they are
	panel         cudakernels.Ptr // bfloat16 [panelElems]; 0 with activations of 8 bits
	panelElems    int
}

const (
	// mostSplitRows is up to where splitting the inputs is clearly faster than decoding
	// the weights. By the times of the products that either is made of, both take the
	// same for some 512 rows of Llama-3-8B on an H100; and the sums need memory.
	mostSplitRows = 256

	// mostPanelElems is 64 MiB of bfloat16. A smaller panel would stay in the L2 cache,
	// but its products do not fill the device: on an H100, the products of a layer of
	// Llama-3-8B with 2048 rows took 1.38 ms with panels of 64 MiB, 1.50 with 32, 1.65
	// with 16 and 2.05 with 8.
	mostPanelElems = 32 << 20

	// panelRows is what the rows of a panel are a multiple of, so that no product is
	// odd.
	panelRows = 64
)

// makeFP8 allocates what the products need.
func (d *Device) makeFP8() error {
	if d.opts.Weights != backend.WeightsFP8 {
		return nil
	}
	c, f := &d.cfg, &d.products.fp8
	rows := bucket(d.opts.MaxBatchTokens)
	widest := max(2*c.FFN, (c.Heads+2*c.KVHeads)*c.HeadDim, c.Hidden)
	native := d.products.blas.SupportsFP8()
	var buffers []alloc
	if !native || d.opts.Activations != backend.Int8 {
		f.panelElems = min(c.Hidden*widest, mostPanelElems)
		buffers = append(buffers, alloc{&f.panel, 2 * f.panelElems})
		rows = 2 * min(rows, mostSplitRows)
		if native {
			buffers = append(buffers, alloc{&f.sums, 4 * rows * widest})
		}
	}
	if native {
		buffers = append(buffers, alloc{&f.codes, rows * max(c.Hidden, c.Heads*c.HeadDim, c.FFN)}, alloc{&f.scales, 4 * rows})
	}
	for _, a := range buffers {
		p, err := d.arena.Alloc(int64(a.bytes))
		if err != nil {
			return fmt.Errorf("buffers of products with fp8 weights: %w", err)
		}
		*a.to = cudakernels.Ptr(p)
	}
	return nil
}

// multiply adds y[m][n] = x[m][k] w[n][k]^T to the stream.
func (d *Device) multiply(shape cudadrv.ProductShape, w matrix, x, y cudakernels.Ptr) error {
	switch f := &d.products.fp8; {
	case w.scales == 0:
		return d.products.multiply(shape, w.at, x, y)
	case f.panel == 0:
		return d.multiplyCodes(shape, w, x, y)
	case f.sums != 0 && shape.M <= mostSplitRows && !shape.F32:
		return d.multiplySplit(shape, w, x, y)
	}
	return d.multiplyPanels(shape, w, x, y)
}

// multiplyCodes multiplies e4m3 by e4m3.
func (d *Device) multiplyCodes(shape cudadrv.ProductShape, w matrix, x, y cudakernels.Ptr) error {
	f := &d.products.fp8
	err := launch(d, &cudakernels.QuantizeRows{X: x, Codes: f.codes, Scales: f.scales, Rows: int64(shape.M), Cols: int64(shape.K)}, true)
	if err != nil {
		return err
	}
	return d.products.multiplyFP8(shape, w, y)
}

// multiplySplit multiplies e4m3 by e4m3, of which two are one bfloat16.
func (d *Device) multiplySplit(shape cudadrv.ProductShape, w matrix, x, y cudakernels.Ptr) error {
	f, rows := &d.products.fp8, int64(shape.M)
	err := launch(d, &cudakernels.SplitRows{X: x, Codes: f.codes, Scales: f.scales, Rows: rows, Cols: int64(shape.K)}, true)
	if err != nil {
		return err
	}
	shape.M, shape.F32 = 2*shape.M, true
	if err := d.products.multiplyFP8(shape, w, f.sums); err != nil {
		return err
	}
	return launch(d, &cudakernels.SumSplit{Sums: f.sums, Y: y, Rows: rows, Cols: int64(shape.N)}, true)
}

// multiplyFP8 adds the product of the codes that the inputs have become.
func (p *products) multiplyFP8(shape cudadrv.ProductShape, w matrix, y cudakernels.Ptr) error {
	shape.FP8 = true
	prepared, err := p.prepare(shape)
	if err != nil {
		return err
	}
	return prepared.RunOperands(cudadrv.Operands{
		W: cudadrv.Ptr(w.at), WScales: cudadrv.Ptr(w.scales), X: cudadrv.Ptr(p.fp8.codes), XScales: cudadrv.Ptr(p.fp8.scales), Y: cudadrv.Ptr(y),
	})
}

// multiplyPanels multiplies bfloat16 by bfloat16, outputs in equal parts.
func (d *Device) multiplyPanels(shape cudadrv.ProductShape, w matrix, x, y cudakernels.Ptr) error {
	f, n, k := &d.products.fp8, shape.N, shape.K
	width := cudakernels.Ptr(2) // of an element of y
	if shape.F32 {
		width = 4
	}
	shape.Stride = n
	for from, rows := 0, f.panelOutputs(n, k); from < n; from += rows {
		shape.N = min(rows, n-from)
		at := cudakernels.Ptr(from)
		err := launch(d, &cudakernels.DequantizeRows{
			Codes: w.at + at*cudakernels.Ptr(k), Scales: w.scales + 4*at, Y: f.panel, Rows: int64(shape.N), Cols: int64(k),
		}, true)
		if err == nil {
			err = d.products.multiply(shape, f.panel, x, y+width*at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// panelOutputs returns how many of n outputs from k inputs are computed at a time.
func (f *fp8) panelOutputs(n, k int) int {
	if n*k <= f.panelElems {
		return n
	}
	most := f.panelElems / k / panelRows * panelRows
	parts := (n + most - 1) / most
	return ((n+parts-1)/parts + panelRows - 1) / panelRows * panelRows
}

// precision names what the operands of the products are rounded to.
func (d *Device) precision() string {
	switch {
	case d.opts.Weights != backend.WeightsFP8:
		return "bf16 weights and activations"
	case d.products.fp8.panel != 0:
		return "fp8 weights and bf16 activations"
	}
	return "fp8 weights and activations"
}
