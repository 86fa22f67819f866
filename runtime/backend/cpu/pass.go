package cpu

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/attention"
	"github.com/moaserve/moaserve/runtime/backend/cpu/matmul"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// pass is the forward pass of the step in progress: its buffers, reused from
// step to step, and its stages. Each stage splits its rows or tiles over the
// workers; the stages follow one another.
type pass struct {
	d    *Device
	rows int
	// planes is 2 when activations are taken at 16 bits: in every buffer that a
	// product reads or writes, each row is then followed by one for its residual
	// (see input, output and quantise).
	planes int

	seq []int32 // sequence of each row
	pos []int32 // absolute position of each row

	x        []float32 // [rows][Hidden] residual stream
	y        []float32 // [rows][Hidden] projection to be added to x
	pending  bool      // y has not been added yet
	q        []float32 // [rows][Heads*HeadDim]
	k, v     []float32 // [rows][KVHeads*HeadDim]
	att      []float32 // [rows][Heads*HeadDim]
	gate, up []float32 // [rows][FFN]

	hidden, heads, ffn matmul.Activations // inputs of the products, by width

	seqs    []backend.Seq
	queries []attention.Query // of the layer in progress, parallel to seqs
	layer   int
	norm    []float32 // weight of the norm stage in progress

	tasks []mulTask
	out   outputs

	// The stages as functions, bound once so that a step allocates nothing.
	normStage, ropeStage, headStage, ffnStage, mulStage, logitStage, sampleStage func(worker, task int)
}

func (p *pass) init(d *Device) {
	p.d = d
	p.planes = 1
	if d.opts.Activations == backend.Int16 {
		p.planes = 2
	}
	p.normStage = p.normRows
	p.ropeStage = p.ropeRows
	p.headStage = p.packHeads
	p.ffnStage = p.gateRows
	p.mulStage = p.multiplyTask
	p.logitStage = p.logitRows
	p.sampleStage = p.sampleRow
}

// rowBlock is how many rows a task of the row-wise stages takes: enough work to
// outweigh the claim of a task.
const rowBlock = 4

// forRows runs a row-wise stage over all rows.
func (p *pass) forRows(stage func(worker, task int)) {
	n := (p.rows + rowBlock - 1) / rowBlock
	if n == 1 {
		stage(0, 0)
		return
	}
	p.d.workers.Run(n, stage)
}

func (p *pass) block(task int) (from, to int) {
	return task * rowBlock, min((task+1)*rowBlock, p.rows)
}

// begin sizes the buffers and looks up the embeddings.
func (p *pass) begin(b *backend.Batch) error {
	c := &p.d.cfg
	p.rows = len(b.Tokens)
	p.seq, p.pos = resize(p.seq, p.rows), resize(p.pos, p.rows)
	products := p.planes * p.rows // rows of what products read and write
	p.x, p.att = resize(p.x, p.rows*c.Hidden), resize(p.att, p.rows*c.Heads*c.HeadDim)
	p.y, p.q = resize(p.y, products*c.Hidden), resize(p.q, products*c.Heads*c.HeadDim)
	p.k, p.v = resize(p.k, products*c.KVHeads*c.HeadDim), resize(p.v, products*c.KVHeads*c.HeadDim)
	p.gate, p.up = resize(p.gate, products*c.FFN), resize(p.up, products*c.FFN)
	p.hidden.Resize(products, c.Hidden)
	p.heads.Resize(products, c.Heads*c.HeadDim)
	p.ffn.Resize(products, c.FFN)
	p.pending = false
	p.seqs = b.Seqs

	if cap(p.queries) < len(b.Seqs) {
		p.queries = make([]attention.Query, len(b.Seqs))
	}
	p.queries = p.queries[:len(b.Seqs)]
	width := c.Heads * c.HeadDim
	deepest := 0
	for i, s := range b.Seqs {
		for j := range s.Len {
			p.seq[s.Offset+j] = int32(i)
			p.pos[s.Offset+j] = int32(s.Start + j)
		}
		p.queries[i] = attention.Query{
			Q: p.q[p.planes*s.Offset*width:], QStride: p.planes * width,
			Out: p.att[s.Offset*width:], OutStride: width,
			Rows: s.Len, Start: s.Start, Layout: s.Layout,
		}
		deepest = max(deepest, s.Start+s.Len)
		if err := p.d.tables.Check(i, s); err != nil {
			return err
		}
	}
	p.d.rope.Grow(deepest)

	e := &p.d.embedding
	rowBytes := len(e.Data) / c.Vocab
	for i, id := range b.Tokens {
		row := e.Data[int(id)*rowBytes : (int(id)+1)*rowBytes]
		if err := weights.Dequantize(p.x[i*c.Hidden:(i+1)*c.Hidden], e.Type, row); err != nil {
			return fmt.Errorf("reading the embedding of token %d: %w", id, err)
		}
	}
	return nil
}

// attend computes the attention half of a layer; its output is left pending.
func (p *pass) attend(i int) {
	y := &p.d.layers[i]
	p.layer = i
	p.normalise(y.attnNorm)
	c := &p.d.cfg
	for j, s := range p.seqs {
		first := i * c.KVHeads
		p.queries[j].FirstHead = first
		p.queries[j].Pages = p.d.tables.Heads(s.Slot)[first : first+c.KVHeads]
	}
	p.multiply(&p.hidden,
		product{y.q, p.q, c.Heads * c.HeadDim},
		product{y.k, p.k, c.KVHeads * c.HeadDim},
		product{y.v, p.v, c.KVHeads * c.HeadDim})
	p.forRows(p.ropeStage)
	p.d.pool.attention.Run(p.queries)
	p.forRows(p.headStage)
	p.multiply(&p.heads, product{y.o, p.y, c.Hidden})
	p.pending = true
}

// feedForward computes the gated feed-forward half of a layer; its output is
// left pending.
func (p *pass) feedForward(i int) {
	y := &p.d.layers[i]
	c := &p.d.cfg
	p.normalise(y.ffnNorm)
	p.multiply(&p.hidden, product{y.gate, p.gate, c.FFN}, product{y.up, p.up, c.FFN})
	p.forRows(p.ffnStage)
	p.multiply(&p.ffn, product{y.down, p.y, c.Hidden})
	p.pending = true
}

// normalise adds what is pending to the residual stream and prepares its norm as
// the input of the next products.
func (p *pass) normalise(weight []float32) {
	p.norm = weight
	p.forRows(p.normStage)
	p.pending = false
}

func (p *pass) normRows(_, task int) {
	from, to := p.block(task)
	n := p.d.cfg.Hidden
	for r := from; r < to; r++ {
		x := p.x[r*n : (r+1)*n]
		if p.pending {
			p.d.ops.Add(x, p.output(p.y, r, n))
		}
		p.d.ops.RMSNorm(p.input(&p.hidden, r), x, p.norm, p.d.cfg.NormEps)
		p.quantise(&p.hidden, r)
	}
}

// ropeRows finishes queries, keys and values (bias, norm, rotation) and appends
// keys and values to their pages.
func (p *pass) ropeRows(_, task int) {
	c, y := &p.d.cfg, &p.d.layers[p.layer]
	from, to := p.block(task)
	for r := from; r < to; r++ {
		q := p.output(p.q, r, c.Heads*c.HeadDim)
		k := p.output(p.k, r, c.KVHeads*c.HeadDim)
		v := p.output(p.v, r, c.KVHeads*c.HeadDim)
		if y.qBias != nil {
			p.d.ops.Add(q, y.qBias)
			p.d.ops.Add(k, y.kBias)
			p.d.ops.Add(v, y.vBias)
		}
		pos := int(p.pos[r])
		p.rotate(q, y.qNorm, pos)
		p.rotate(k, y.kNorm, pos)

		table := p.queries[p.seq[r]].Pages
		block, slot := pos/plan.BlockSize, pos%plan.BlockSize
		for h := range c.KVHeads {
			page := table[h][block]
			p.d.pool.cache.Append(page, slot, k[h*c.HeadDim:(h+1)*c.HeadDim], v[h*c.HeadDim:(h+1)*c.HeadDim])
		}
	}
}

// rotate normalises (Qwen3) and rotates every head of x.
func (p *pass) rotate(x, norm []float32, pos int) {
	if norm != nil {
		n := p.d.cfg.HeadDim
		for i := 0; i < len(x); i += n {
			p.d.ops.RMSNorm(x[i:i+n], x[i:i+n], norm, p.d.cfg.NormEps)
		}
	}
	p.d.rope.Rotate(x, pos)
}

// packHeads prepares the attention output as the input of the output projection.
func (p *pass) packHeads(_, task int) {
	from, to := p.block(task)
	n := p.d.cfg.Heads * p.d.cfg.HeadDim
	for r := from; r < to; r++ {
		copy(p.input(&p.heads, r), p.att[r*n:(r+1)*n])
		p.quantise(&p.heads, r)
	}
}

// gateRows prepares SiLU(gate)*up as the input of the down projection.
func (p *pass) gateRows(_, task int) {
	from, to := p.block(task)
	n := p.d.cfg.FFN
	for r := from; r < to; r++ {
		p.d.ops.SiLUMul(p.input(&p.ffn, r), p.output(p.gate, r, n), p.output(p.up, r, n))
		p.quantise(&p.ffn, r)
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
