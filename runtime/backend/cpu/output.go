package cpu

import (
	"slices"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/matmul"
	"github.com/moaserve/moaserve/runtime/sample"
)

// outputs are the buffers of the last stage: logits and samples of the rows that
// were asked for.
type outputs struct {
	rows   []backend.Row
	source []int // row of the batch that each answer is computed from
	in     matmul.Activations
	logits []float32 // [rows][Vocab]
	result backend.Result
}

// answer computes the logits of the batch's rows and samples from them.
func (p *pass) answer(b *backend.Batch) *backend.Result {
	o, c := &p.out, &p.d.cfg
	o.rows = b.Rows
	o.result.Choices = resize(o.result.Choices, len(b.Rows))
	o.result.Logits = resize(o.result.Logits, len(b.Rows))
	clear(o.result.Choices)
	clear(o.result.Logits)
	if len(b.Rows) == 0 {
		return &o.result
	}
	o.source = o.source[:0]
	for _, r := range b.Rows {
		o.source = append(o.source, b.Seqs[r.Seq].Offset+r.Token)
	}
	o.in.Resize(p.planes*len(b.Rows), c.Hidden)
	o.logits = resize(o.logits, p.planes*len(b.Rows)*c.Vocab)
	p.d.workers.Run(len(b.Rows), p.logitStage)
	p.tasks = appendTasks(p.tasks[:0], &o.in, len(b.Rows), p.d.opts.Threads, []product{{p.d.output, o.logits, c.Vocab}})
	p.d.workers.RunNear(len(p.tasks), p.mulStage)
	p.d.workers.Run(len(b.Rows), p.sampleStage)
	return &o.result
}

// logitRows applies the output norm to one answer's row.
func (p *pass) logitRows(_, i int) {
	n, r := p.d.cfg.Hidden, p.out.source[i]
	row := p.input(&p.out.in, i)
	copy(row, p.x[r*n:(r+1)*n])
	if p.pending {
		p.d.ops.Add(row, p.output(p.y, r, n))
	}
	p.d.ops.RMSNorm(row, row, p.d.outNorm, p.d.cfg.NormEps)
	p.quantise(&p.out.in, i)
}

// sampleRow keeps and samples one answer's logits.
func (p *pass) sampleRow(_, i int) {
	o, n := &p.out, p.d.cfg.Vocab
	logits := p.output(o.logits, i, n)
	r := &o.rows[i]
	if r.KeepLogits {
		o.result.Logits[i] = slices.Clone(logits)
	}
	o.result.Choices[i] = sample.Choice{}
	if r.Sampler != nil {
		o.result.Choices[i] = r.Sampler.Sample(logits, r.Mask)
	}
}
