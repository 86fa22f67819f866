//go:build cuda

package cuda

import (
	"math"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// pass adds the stages of a forward pass to the device's stream. It keeps the
// first error, after which its methods do nothing. All that it launches depends
// on addresses and on the numbers below alone, so that it can be captured.
type pass struct {
	d        *Device
	rows     int  // of the products: the batch's, rounded up to a bucket
	decodes  bool // some sequences decode
	prefills bool // some prefill
	whole    bool // the residual stream has all that was to be added to it
	err      error
}

func (p *pass) do(err error) {
	if p.err == nil {
		p.err = err
	}
}

// run launches a kernel unless something failed before.
func run[T any, P args[T]](p *pass, a P, overlap bool) {
	if p.err == nil {
		p.err = launch(p.d, a, overlap)
	}
}

// forward adds the whole network up to the residual stream and the delta that
// the last layer leaves to be added to it, if it does.
func (p *pass) forward() {
	d, b := p.d, &p.d.buffers
	c := &d.cfg
	p.plan()
	// What a plan kernel wrote is read ahead of the wait of later kernels: the next
	// one must not overlap with it.
	run(p, &cudakernels.Embed{
		Tokens: d.inputs.at(d.inputs.tokens), Choices: b.ids, Table: d.weights.embedding, X: b.x,
		Rows: int64(p.rows), Hidden: int64(c.Hidden), Vocab: int64(c.Vocab),
	}, false)
	if d.takesFew(p.rows) {
		for i := range d.weights.layers {
			p.layerOfFew(i)
		}
		p.whole = true
		return
	}
	for i := range d.weights.layers {
		p.layer(i)
	}
}

// layer adds a layer. It leaves a delta to be added to the residual stream.
func (p *pass) layer(i int) {
	d, b := p.d, &p.d.buffers
	y := &d.weights.layers[i]
	qkv, o, gateUp, down := d.layerProducts(i)
	delta := b.delta
	if i == 0 {
		delta = 0
	}
	p.normalise(delta, y.attnNorm)
	p.multiply(qkv, b.norm, b.qkv)
	p.ropeAppend(i)
	p.attend(i)
	p.multiply(o, b.att, b.delta)
	p.normalise(b.delta, y.ffnNorm)
	p.multiply(gateUp, b.norm, b.gateUp)
	run(p, &cudakernels.SiluMul{GateUp: b.gateUp, Y: b.act, Rows: int64(p.rows), FFN: int64(d.cfg.FFN)}, true)
	p.multiply(down, b.act, b.delta)
}

// plan cuts the attention of all layers into work.
func (p *pass) plan() {
	d, b := p.d, &p.d.buffers
	c := &d.cfg
	if p.decodes {
		run(p, &cudakernels.DecodePlan{
			Header: d.inputs.device, Seqs: d.inputs.at(d.inputs.seqs), Rules: d.rules.device, Plan: b.decodePlan,
			PlanStride: b.decodePlanStride, Layers: int64(c.Layers), KVHeads: int64(c.KVHeads), Group: int64(c.Group()),
			Blocks: int64(cudakernels.DecodeBlocks(d.shapes, d.pageType(), c.HeadDim)), HeadDim: int64(c.HeadDim),
		}, false)
	}
	if p.prefills {
		run(p, &cudakernels.PrefillPlan{
			Header: d.inputs.device, Seqs: d.inputs.at(d.inputs.seqs), Rules: d.rules.device, Plan: b.prefillPlan,
			PlanStride: b.prefillStride, MaxItems: b.maxItems, Layers: int64(c.Layers), KVHeads: int64(c.KVHeads), Group: int64(c.Group()),
			HeadDim: int64(c.HeadDim), SMs: int64(d.shapes.SMs),
		}, false)
	}
}

// normalise adds delta to the residual stream and prepares its norm as the input
// of the next product.
func (p *pass) normalise(delta, weight cudakernels.Ptr) {
	b, c := &p.d.buffers, &p.d.cfg
	run(p, &cudakernels.RMSNorm{
		X: b.x, Delta: delta, Weight: weight, Y: b.norm, Rows: int64(p.rows), Hidden: int64(c.Hidden), Eps: float64(c.NormEps),
	}, true)
}

// ropeAppend finishes queries, keys and values, and appends keys and values to
// their pages.
func (p *pass) ropeAppend(layer int) {
	d, b := p.d, &p.d.buffers
	c, y := &d.cfg, &d.weights.layers[layer]
	interleaved := int64(0)
	if c.Rope.Interleaved {
		interleaved = 1
	}
	a := cudakernels.RopeAppend{
		QKV: b.qkv, Bias: y.bias, QNorm: y.qNorm, KNorm: y.kNorm, Angles: b.angles,
		Meta: d.inputs.at(d.inputs.rows), Seqs: d.inputs.at(d.inputs.seqs), Table: b.table, Pool: d.pool.at(), Q: b.q, QTiles: b.qTiles,
		Rows: int64(p.rows), QueryHeads: int64(c.Heads), KVHeads: int64(c.KVHeads), HeadDim: int64(c.HeadDim),
		Pairs: int64(len(c.Rope.Frequencies)), Interleaved: interleaved, Layer: int64(layer), Heads: int64(c.Layers * c.KVHeads),
		MaxBlocks: int64(b.maxBlocks), Eps: float64(c.NormEps),
	}
	if d.pageType() == cudakernels.PagesFP8 {
		run(p, &cudakernels.RopeAppendFP8{RopeAppend: a}, true)
	} else {
		run(p, &a, true)
	}
}

// attend computes the attention of a layer: of the sequences that decode, then of
// those that prefill.
func (p *pass) attend(layer int) {
	d, b := p.d, &p.d.buffers
	c := &d.cfg
	fp8, scale := d.pageType() == cudakernels.PagesFP8, 1/math.Sqrt(float64(c.HeadDim))
	if p.decodes {
		use, clean := d.workspaces(layer)
		if c.Layers == 1 && p.err == nil { // no other layer cleans up
			p.do(d.stream.Fill(cudadrv.Ptr(use), 0xff, b.decodeWorkspaceSize))
		}
		a := cudakernels.DecodeAttention{
			Pool: d.pool.at(), Plan: b.decodePlan + cudakernels.Ptr(int64(layer)*b.decodePlanStride), Table: b.table, Q: b.q, Out: b.att,
			Workspace: use, Clear: clean,
			Layer: int64(layer), KVHeads: int64(c.KVHeads), Heads: int64(c.Layers * c.KVHeads), MaxBlocks: int64(b.maxBlocks),
			Group: int64(c.Group()), HeadDim: int64(c.HeadDim), Stages: int64(cudakernels.DecodeStages(d.shapes, d.pageType(), c.HeadDim)), Scale: scale,
		}
		if fp8 {
			run(p, &cudakernels.DecodeAttentionFP8{DecodeAttention: a}, c.Layers > 1)
		} else {
			run(p, &a, c.Layers > 1)
		}
	}
	if p.prefills {
		a := cudakernels.PrefillAttention{
			Pool: d.pool.at(), Plan: b.prefillPlan + cudakernels.Ptr(int64(layer)*b.prefillStride), Table: b.table, Q: b.qTiles, Out: b.att,
			Workspace: b.prefillWorkspace,
			MaxItems:  b.maxItems, MaxBlocks: int64(b.maxBlocks), QueryHeads: int64(c.Heads), HeadDim: int64(c.HeadDim), Scale: scale,
		}
		if fp8 {
			run(p, &cudakernels.PrefillAttentionFP8{PrefillAttention: a}, true)
		} else {
			run(p, &a, true)
		}
	}
}

// workspaces returns what a layer's decode attention works in, and that of the
// layer before, which it cleans: two in turn, and a third for the last of an odd
// number of layers, after which layer 0 must find the first one clean.
func (d *Device) workspaces(layer int) (use, clean cudakernels.Ptr) {
	w, n := &d.buffers.decodeWorkspace, d.cfg.Layers
	of := func(layer int) int {
		if n%2 == 1 && layer == n-1 && n > 1 {
			return 2
		}
		return layer % 2
	}
	if n == 1 {
		return w[0], w[1]
	}
	return w[of(layer)], w[of((layer+n-1)%n)]
}

// logits adds the output projection of n of the rows, those that the input's
// index names, and the choice of their tokens.
func (p *pass) logits(n int) {
	d, b := p.d, &p.d.buffers
	c := &d.cfg
	delta := b.delta
	if p.whole {
		delta = 0
	}
	run(p, &cudakernels.RMSNorm{
		X: b.x, Delta: delta, Weight: d.weights.outNorm, Y: b.norm, Index: d.inputs.at(d.inputs.index),
		Rows: int64(n), Hidden: int64(c.Hidden), Eps: float64(c.NormEps),
	}, true)
	if output := d.outputProduct(); !d.products.library && cudakernels.ProductStages(d.shapes, n, output.k) > 0 {
		first, _, _, _ := d.layerProducts(0) // of the next step
		p.multiplyFew(n, output, cudakernels.Product{X: b.norm, Y: b.logits, F32: 1}, first)
	} else if p.err == nil {
		p.err = d.multiply(cudadrv.ProductShape{M: n, N: output.n, K: output.k, F32: true}, output.matrix, b.norm, b.logits)
	}
	run(p, &cudakernels.Sample{
		Logits: b.logits, Params: d.inputs.at(d.inputs.samples), Tokens: b.ids, Choices: b.choices, Rows: int64(n), Vocab: int64(c.Vocab),
	}, true)
}

// at returns the address of the pages.
func (p *pool) at() cudakernels.Ptr { return cudakernels.Ptr(p.memory.Ptr()) }
