//go:build cuda

package cuda

import (
	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// dense is a product of the network: weights, outputs and inputs.
type dense struct {
	matrix
	n, k  int
	gated bool // gates are the first n rows of the weights, ups the others
}

// layerProducts returns the products of a layer, in order.
func (d *Device) layerProducts(i int) (qkv, o, gateUp, down dense) {
	c, y := &d.cfg, &d.weights.layers[i]
	return dense{matrix: y.qkv, n: (c.Heads + 2*c.KVHeads) * c.HeadDim, k: c.Hidden},
		dense{matrix: y.o, n: c.Hidden, k: c.Heads * c.HeadDim},
		dense{matrix: y.gateUp, n: c.FFN, k: c.Hidden, gated: true},
		dense{matrix: y.down, n: c.Hidden, k: c.FFN}
}

// outputProduct returns the product that makes logits.
func (d *Device) outputProduct() dense {
	return dense{matrix: matrix{at: d.weights.output}, n: d.cfg.Vocab, k: d.cfg.Hidden}
}

// afterLayer returns the product that follows a layer's last, and the weights of the
// norm between them.
func (d *Device) afterLayer(i int) (dense, cudakernels.Ptr) {
	if i+1 == len(d.weights.layers) {
		return d.outputProduct(), d.weights.outNorm
	}
	qkv, _, _, _ := d.layerProducts(i + 1)
	return qkv, d.weights.layers[i+1].attnNorm
}

// takesFew reports whether the kernel for few rows does all products of a layer.
func (d *Device) takesFew(rows int) bool {
	if d.products.library {
		return false
	}
	qkv, o, gateUp, down := d.layerProducts(0)
	for _, w := range []dense{qkv, o, gateUp, down} {
		if cudakernels.ProductStages(d.shapes, rows, w.k) == 0 {
			return false
		}
	}
	return true
}

// layerOfFew adds a layer for few rows: norms and activation are parts of the
// products. It leaves nothing to be added to the residual stream.
func (p *pass) layerOfFew(i int) {
	d, b := p.d, &p.d.buffers
	y := &d.weights.layers[i]
	qkv, o, gateUp, down := d.layerProducts(i)
	after, afterNorm := d.afterLayer(i)
	first := cudakernels.Product{X: b.norm, Y: b.qkv, Squares: b.squares, Normalise: 1}
	if i == 0 { // the stream comes from no product
		p.normalise(0, y.attnNorm)
		first.Normalise = 0
	}
	p.multiplyFew(p.rows, qkv, first, o)
	p.ropeAppend(i)
	p.attend(i)
	p.multiplyFew(p.rows, o, cudakernels.Product{X: b.att, Y: b.norm, Stream: b.x, Norm: y.ffnNorm, Squares: b.squares}, gateUp)
	p.multiplyFew(p.rows, gateUp, cudakernels.Product{X: b.norm, Y: b.act, Squares: b.squares, Normalise: 1}, down)
	p.multiplyFew(p.rows, down, cudakernels.Product{X: b.act, Y: b.norm, Stream: b.x, Norm: afterNorm, Squares: b.squares}, after)
}

// multiplyFew adds a product of few rows: a says what besides shapes and weights. The
// weights of the product that is next are fetched ahead when there is time.
func (p *pass) multiplyFew(m int, w dense, a cudakernels.Product, next dense) {
	d := p.d
	a.W, a.Scale, a.M, a.N, a.K = w.at, w.scales, int64(m), int64(w.n), int64(w.k)
	a.Gated, a.Eps = flag(w.gated), float64(d.cfg.NormEps)
	a.Stages = int64(cudakernels.ProductStages(d.shapes, m, w.k))
	a.Next, a.NextRows, a.NextGated = next.at, int64(next.n), flag(next.gated)
	a.NextRowBytes, a.NextTiles = int64(next.rowBytes()), int64(cudakernels.ProductAhead(d.shapes))
	run(p, &a, true)
}

// multiply adds y[m][n] = x[m][k] w[n][k]^T to the stream.
func (p *pass) multiply(w dense, x, y cudakernels.Ptr) {
	if p.err == nil {
		p.err = p.d.multiply(cudadrv.ProductShape{M: p.rows, N: w.rows(), K: w.k}, w.matrix, x, y)
	}
}

// rows is the rows of the weights.
func (w dense) rows() int {
	if w.gated {
		return 2 * w.n
	}
	return w.n
}

// rowBytes is the bytes of each of them.
func (w dense) rowBytes() int {
	if w.scales != 0 {
		return w.k
	}
	return 2 * w.k
}

// flag is b as kernels take it.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
