package backendtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/weights"
)

// faults are the mistakes that the plain backend can be told to make: the suite
// must notice each.
type faults struct {
	noSink, spanShort, spanLong bool // the mask
	seesFuture                  bool
	positionInBatch             bool // rotates by the position in the chunk
	staleTail                   bool // multiplies what is masked by zero
	ignoreOverwrites            bool // keeps the first page of a block
	sharedSlots                 bool // one page table for all slots
	lastRowOnly                 bool // answers the last token whatever Row.Token says
	batchShows                  bool // the last bits depend on the batch's size
	dirtyLogits                 bool // keeps logits after the sampler overwrote them
	noMask                      bool
	wrongGroup                  bool // query heads are spread over KV heads
	noBias, noQKNorm            bool
	floatCache                  bool // does not round keys and values, to the tolerance's limit
	coarseCache                 bool // has 4 bits where q8_0 has 8
	noKVOffset                  bool // heads of later layers share pages
	silent                      bool // no progress, no heed of the context, no checks
	halfPages                   bool // pages are moved without their values
	typelessPages               bool // the format of pages says nothing of the cache's type
	shortPages                  bool // takes buffers of any size for pages
}

// plainBackend computes token by token in float64 with paged keys and values.
// Nothing in it is shared with the float64 reference but the rotation.
type plainBackend struct{ faults faults }

var _ backend.Backend = plainBackend{}

func (plainBackend) Name() string { return "plain" }

func (b plainBackend) Load(ctx context.Context, m *model.Model, src weights.Source, o backend.Options) (backend.Device, error) {
	if err := ctx.Err(); err != nil && !b.faults.silent {
		return nil, err
	}
	d := &plainDevice{m: m, o: o, faults: b.faults, weights: map[weightKey][]float64{}, tables: make([]map[tableKey]int32, o.MaxSequences)}
	for layer := range m.Layers {
		for _, r := range m.Roles() {
			if layer > 0 && !r.PerLayer() {
				continue
			}
			t, err := m.Tensor(src, r, layer)
			if err != nil {
				return nil, err
			}
			v, err := t.Float32s()
			if err != nil {
				return nil, err
			}
			wide := make([]float64, len(v))
			for i, x := range v {
				wide[i] = float64(x)
			}
			d.weights[weightKey{r, layer}] = wide
		}
	}
	if m.TiedEmbeddings {
		d.weights[weightKey{model.Output, 0}] = d.weights[weightKey{model.TokenEmbedding, 0}]
	}
	for i := range d.tables {
		d.tables[i] = map[tableKey]int32{}
	}
	if o.Progress != nil && !b.faults.silent {
		o.Progress(1, 2)
		o.Progress(2, 2)
	}
	return d, nil
}

type weightKey struct {
	role  model.Role
	layer int
}

type plainDevice struct {
	m       *model.Model
	o       backend.Options
	faults  faults
	weights map[weightKey][]float64
	pool    *plainPool
	tables  []map[tableKey]int32
}

type plainPool struct {
	d    *plainDevice
	keys [][plan.BlockSize][]float64
	vals [][plan.BlockSize][]float64
}

func (p *plainPool) Pages() int   { return len(p.keys) }
func (p *plainPool) Close() error { p.d.pool = nil; return nil }

var _ backend.PageIO = (*plainPool)(nil)

func (p *plainPool) Format() string {
	if p.d.faults.typelessPages {
		return "plain"
	}
	return fmt.Sprintf("plain/%d", p.d.o.KV)
}

func (p *plainPool) ReadPage(page int32, dst []byte) error {
	return p.copyPage(page, dst, func(b []byte, x *float64) { binary.LittleEndian.PutUint64(b, math.Float64bits(*x)) })
}

func (p *plainPool) WritePage(page int32, src []byte) error {
	return p.copyPage(page, src, func(b []byte, x *float64) { *x = math.Float64frombits(binary.LittleEndian.Uint64(b)) })
}

// copyPage calls f for every number of a page and its place among the bytes.
func (p *plainPool) copyPage(page int32, b []byte, f func(b []byte, x *float64)) error {
	if page < 0 || int(page) >= len(p.keys) || len(b) != p.d.PageBytes() && !p.d.faults.shortPages {
		return errors.New("plain: bad page")
	}
	for t := range plan.BlockSize {
		for i := range p.d.m.HeadDim {
			if len(b) < 16 {
				return nil
			}
			f(b, &p.keys[page][t][i])
			if !p.d.faults.halfPages {
				f(b[8:], &p.vals[page][t][i])
			}
			b = b[16:]
		}
	}
	return nil
}

func (d *plainDevice) Describe() string { return "plain float64" }
func (d *plainDevice) PageBytes() int   { return plan.BlockSize * d.m.HeadDim * 16 }
func (d *plainDevice) Close() error     { return nil }

func (d *plainDevice) NewPool(pages int) (backend.Pool, error) {
	if d.pool != nil {
		return nil, errors.New("plain: one pool only")
	}
	d.pool = &plainPool{d: d, keys: make([][plan.BlockSize][]float64, pages), vals: make([][plan.BlockSize][]float64, pages)}
	for i := range d.pool.keys {
		for t := range plan.BlockSize {
			d.pool.keys[i][t], d.pool.vals[i][t] = make([]float64, d.m.HeadDim), make([]float64, d.m.HeadDim)
		}
	}
	return d.pool, nil
}

func (d *plainDevice) check(b *backend.Batch) error {
	bad := len(b.Tokens) > d.o.MaxBatchTokens
	n := 0
	for _, s := range b.Seqs {
		bad = bad || s.Slot >= d.o.MaxSequences
		n += s.Len
	}
	bad = bad || n != len(b.Tokens)
	for _, t := range b.Tokens {
		bad = bad || t < 0 || int(t) >= d.m.Vocab
	}
	for _, e := range b.Deltas {
		bad = bad || int(e.Page) >= d.pool.Pages() || int(e.Head) >= d.m.Layers*d.m.KVHeads
	}
	for _, r := range b.Rows {
		bad = bad || r.Seq >= len(b.Seqs) || r.Token >= b.Seqs[r.Seq].Len
	}
	if bad {
		return errors.New("plain: bad batch")
	}
	return nil
}

func (d *plainDevice) table(slot int) map[tableKey]int32 {
	if d.faults.sharedSlots {
		slot = 0
	}
	return d.tables[slot]
}

func (d *plainDevice) Step(b *backend.Batch) (*backend.Result, error) {
	if err := d.check(b); err != nil && !d.faults.silent {
		return nil, err
	}
	for _, e := range b.Deltas {
		key := tableKey{e.Head, e.Block}
		if _, ok := d.table(int(e.Slot))[key]; ok && d.faults.ignoreOverwrites {
			continue
		}
		d.table(int(e.Slot))[key] = e.Page
	}
	logits := make([][][]float64, len(b.Seqs))
	for i, s := range b.Seqs {
		for t := range s.Len {
			logits[i] = append(logits[i], d.token(s, b.Tokens[s.Offset+t], s.Start+t))
		}
	}
	r := &backend.Result{Choices: make([]sample.Choice, len(b.Rows)), Logits: make([][]float32, len(b.Rows))}
	for i, row := range b.Rows {
		token := row.Token
		if d.faults.lastRowOnly {
			token = b.Seqs[row.Seq].Len - 1
		}
		out := make([]float32, d.m.Vocab)
		for j, x := range logits[row.Seq][token] {
			if d.faults.batchShows {
				x *= 1 + 1e-6*float64(len(b.Tokens))
			}
			out[j] = float32(x)
		}
		kept := out
		if !d.faults.dirtyLogits {
			kept = slices.Clone(out)
		}
		if row.KeepLogits {
			r.Logits[i] = kept
		}
		if row.Sampler != nil {
			mask := row.Mask
			if d.faults.noMask {
				mask = nil
			}
			r.Choices[i] = row.Sampler.Sample(out, mask)
		}
	}
	return r, nil
}

// token computes one token of one sequence through all layers.
func (d *plainDevice) token(s backend.Seq, id int32, pos int) []float64 {
	m := d.m
	x := slices.Clone(d.weights[weightKey{model.TokenEmbedding, 0}][int(id)*m.Hidden : (int(id)+1)*m.Hidden])
	for layer := range m.Layers {
		in := d.norm(x, model.AttnNorm, layer)
		q, k, v := d.product(in, model.AttnQ, layer), d.product(in, model.AttnK, layer), d.product(in, model.AttnV, layer)
		if m.QKVBias && !d.faults.noBias {
			d.add(q, model.AttnQBias, layer)
			d.add(k, model.AttnKBias, layer)
			d.add(v, model.AttnVBias, layer)
		}
		angle := pos
		if d.faults.positionInBatch {
			angle -= s.Start
		}
		for h := range m.Heads {
			d.rotate(q[h*m.HeadDim:(h+1)*m.HeadDim], model.AttnQNorm, layer, angle)
		}
		for h := range m.KVHeads {
			d.rotate(k[h*m.HeadDim:(h+1)*m.HeadDim], model.AttnKNorm, layer, angle)
			page, at := d.page(s, layer, h, pos/plan.BlockSize), pos%plan.BlockSize
			d.round(d.pool.keys[page][at], k[h*m.HeadDim:])
			d.round(d.pool.vals[page][at], v[h*m.HeadDim:])
		}
		out := make([]float64, m.Heads*m.HeadDim)
		for h := range m.Heads {
			kv := h / m.Group()
			if d.faults.wrongGroup {
				kv = h % m.KVHeads
			}
			d.attend(out[h*m.HeadDim:(h+1)*m.HeadDim], q[h*m.HeadDim:(h+1)*m.HeadDim], s, layer, kv, pos)
		}
		accumulate(x, d.product(out, model.AttnO, layer))
		in = d.norm(x, model.FFNNorm, layer)
		gate, up := d.product(in, model.FFNGate, layer), d.product(in, model.FFNUp, layer)
		for i, g := range gate {
			gate[i] = g / (1 + math.Exp(-g)) * up[i]
		}
		accumulate(x, d.product(gate, model.FFNDown, layer))
	}
	return d.product(d.norm(x, model.OutputNorm, 0), model.Output, 0)
}

func (d *plainDevice) attend(out, q []float64, s backend.Seq, layer, kv, pos int) {
	h, block := layer*d.m.KVHeads+kv, pos/plan.BlockSize
	start := s.Layout.Start(h, block)
	switch {
	case d.faults.spanShort:
		start = min(start+1, block)
	case d.faults.spanLong && start > 0:
		start--
	}
	last := pos
	if d.faults.seesFuture {
		last = min(s.Start+s.Len-1, block*plan.BlockSize+plan.BlockSize-1)
	}
	sum := 0.0
	for b := 0; b <= block; b++ {
		if b == 0 && start > 0 && d.faults.noSink {
			b = start
		} else if b == 1 {
			b = max(b, start)
		}
		page := d.page(s, layer, kv, b)
		for t := range plan.BlockSize {
			seen := b*plan.BlockSize+t <= last
			if !seen && !d.faults.staleTail {
				break
			}
			p := 0.0
			if seen {
				for i, x := range q {
					p += x * d.pool.keys[page][t][i]
				}
				p = math.Exp(p / math.Sqrt(float64(len(q))))
			}
			sum += p
			for i, x := range d.pool.vals[page][t] {
				out[i] += p * x
			}
		}
	}
	for i := range out {
		out[i] /= sum
	}
}

func (d *plainDevice) page(s backend.Seq, layer, kv, block int) int32 {
	h := layer*d.m.KVHeads + kv
	if d.faults.noKVOffset {
		h = kv
	}
	return d.table(s.Slot)[tableKey{int32(h), int32(block)}]
}

// round writes a key or a value as the cache holds it.
func (d *plainDevice) round(dst, src []float64) {
	src = src[:len(dst)]
	if d.o.KV == backend.KVQ8_0 && !d.faults.floatCache {
		d.roundBlocks(dst, src)
		return
	}
	for i, x := range src {
		switch {
		case d.faults.floatCache:
			dst[i] = x
		case d.o.KV == backend.KVBF16:
			dst[i] = model.RoundBF16(x)
		default:
			dst[i] = model.RoundF16(x)
		}
	}
}

// roundBlocks rounds to 8 bits, as q8_0 does, or to 4.
func (d *plainDevice) roundBlocks(dst, src []float64) {
	steps := 127.0
	if d.faults.coarseCache {
		steps = 7
	}
	for at := 0; at < len(src); at += 32 {
		block := src[at:min(at+32, len(src))]
		largest := 0.0
		for _, x := range block {
			largest = max(largest, math.Abs(x))
		}
		scale := model.RoundF16(largest / steps)
		for i, x := range block {
			dst[at+i] = scale * math.RoundToEven(x/max(scale, math.SmallestNonzeroFloat64))
		}
	}
}

func (d *plainDevice) rotate(x []float64, norm model.Role, layer, pos int) {
	if d.m.QKNorm && !d.faults.noQKNorm {
		copy(x, d.norm(x, norm, layer))
	}
	d.m.Rope.Rotate(x, pos)
}

func (d *plainDevice) norm(x []float64, role model.Role, layer int) []float64 {
	sum := 0.0
	for _, e := range x {
		sum += e * e
	}
	out := make([]float64, len(x))
	for i, g := range d.weights[weightKey{role, layer}] {
		out[i] = x[i] / math.Sqrt(sum/float64(len(x))+float64(d.m.NormEps)) * g
	}
	return out
}

func (d *plainDevice) product(x []float64, role model.Role, layer int) []float64 {
	w := d.weights[weightKey{role, layer}]
	out := make([]float64, len(w)/len(x))
	for i := range out {
		row := w[i*len(x) : (i+1)*len(x)]
		var a, b, c, d float64
		for j := 0; j < len(x); j += 4 { // all widths are multiples of 4
			a += row[j] * x[j]
			b += row[j+1] * x[j+1]
			c += row[j+2] * x[j+2]
			d += row[j+3] * x[j+3]
		}
		out[i] = a + b + c + d
	}
	return out
}

func (d *plainDevice) add(x []float64, role model.Role, layer int) {
	accumulate(x, d.weights[weightKey{role, layer}])
}

func accumulate(x, y []float64) {
	for i := range x {
		x[i] += y[i]
	}
}
