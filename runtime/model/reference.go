package model

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"

	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Reference computes the forward pass in float64, token by token and entry by
// entry, with the mask written out. It is the oracle of every backend: as plain
// as can be, and only as fast as that allows. Weights are decoded when they are
// used. A Reference may be used by several goroutines at once.
type Reference struct {
	// RoundKV, when not nil, is applied to every key (after rotation) and every
	// value before attention reads it, as a cache of that type would: RoundF16
	// or RoundBF16. Set it before the first use.
	RoundKV func(float64) float64

	m   *Model
	src weights.Source
}

// RoundF16 rounds to the nearest binary16 number, through float32 as the
// backends do.
func RoundF16(x float64) float64 {
	return float64(weights.F16ToFloat32(weights.Float32ToF16(float32(x))))
}

// RoundBF16 rounds to the nearest bfloat16 number, through float32.
func RoundBF16(x float64) float64 {
	return float64(weights.BF16ToFloat32(weights.Float32ToBF16(float32(x))))
}

// NewReference returns the reference of a model whose weights are in src, which
// must stay open while it is used.
func NewReference(m *Model, src weights.Source) (*Reference, error) {
	if err := m.Check(src); err != nil {
		return nil, err
	}
	return &Reference{m: m, src: src}, nil
}

// Logits returns the logits of every token of one sequence: [len(tokens)][Vocab].
// layout says which blocks each KV head sees; it must have one entry for each
// layer and KV head of the model.
func (r *Reference) Logits(tokens []int32, layout *plan.Layout) ([][]float64, error) {
	x, err := r.hidden(tokens, layout)
	if err != nil {
		return nil, err
	}
	if err := r.norm(x, OutputNorm, 0); err != nil {
		return nil, err
	}
	return r.project(x, Output, 0)
}

// hidden returns the residual stream behind the last layer: [tokens][Hidden].
func (r *Reference) hidden(tokens []int32, layout *plan.Layout) ([][]float64, error) {
	m := r.m
	if want := m.Layers * m.KVHeads; layout.Heads() != want {
		return nil, fmt.Errorf("the layout has %d heads, the model has %d", layout.Heads(), want)
	}
	x, err := r.embed(tokens)
	if err != nil {
		return nil, err
	}
	for layer := range m.Layers {
		if err := r.attention(x, layer, layout); err != nil {
			return nil, err
		}
		if err := r.feedForward(x, layer); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (r *Reference) embed(tokens []int32) ([][]float64, error) {
	t, err := r.m.Tensor(r.src, TokenEmbedding, 0)
	if err != nil {
		return nil, err
	}
	row := make([]float32, r.m.Hidden)
	size := t.Type.RowBytes(r.m.Hidden)
	x := make([][]float64, len(tokens))
	for i, id := range tokens {
		if id < 0 || int(id) >= r.m.Vocab {
			return nil, fmt.Errorf("token %d at position %d is not between 0 and %d", id, i, r.m.Vocab-1)
		}
		if err := weights.Dequantize(row, t.Type, t.Data[int(id)*size:(int(id)+1)*size]); err != nil {
			return nil, err
		}
		x[i] = widen(row)
	}
	return x, nil
}

// attention adds the attention of one layer to the residual stream x.
func (r *Reference) attention(x [][]float64, layer int, layout *plan.Layout) error {
	m := r.m
	in := clone(x)
	if err := r.norm(in, AttnNorm, layer); err != nil {
		return err
	}
	q, err := r.heads(in, AttnQ, AttnQBias, AttnQNorm, layer)
	if err != nil {
		return err
	}
	k, err := r.heads(in, AttnK, AttnKBias, AttnKNorm, layer)
	if err != nil {
		return err
	}
	v, err := r.heads(in, AttnV, AttnVBias, 0, layer)
	if err != nil {
		return err
	}
	if r.RoundKV != nil {
		for t := range k {
			apply(k[t], r.RoundKV)
			apply(v[t], r.RoundKV)
		}
	}
	out := make([][]float64, len(x))
	masks := make([][][]bool, m.KVHeads)
	for h := range masks {
		masks[h] = Mask(layout, layer*m.KVHeads+h, len(x))
	}
	parallel(len(x), func(t int) {
		out[t] = make([]float64, m.Heads*m.HeadDim)
		for h := range m.Heads {
			kv := h / m.Group()
			attend(head(out[t], h, m.HeadDim), head(q[t], h, m.HeadDim), k, v, kv, masks[kv][t])
		}
	})
	y, err := r.project(out, AttnO, layer)
	if err != nil {
		return err
	}
	add(x, y)
	return nil
}

// Mask writes out which positions the queries of a sequence of n tokens see:
// Mask(l, h, n)[t][s] says whether the query at position t of head h sees the
// key at position s. It is the definition of package plan, entry by entry: s is
// not behind t, and lies in block 0 or in the span of t's block.
func Mask(layout *plan.Layout, head, n int) [][]bool {
	mask := make([][]bool, n)
	for t := range mask {
		start := layout.Start(head, t/plan.BlockSize)
		mask[t] = make([]bool, n)
		for s := range mask[t] {
			block := s / plan.BlockSize
			mask[t][s] = s <= t && (block == 0 || block >= start)
		}
	}
	return mask
}

// attend computes one query's softmax over the keys that its mask lets through.
func attend(out, q []float64, k, v [][]float64, kvHead int, mask []bool) {
	dim := len(q)
	scores := make([]float64, len(mask))
	top := math.Inf(-1)
	for s, visible := range mask {
		if visible {
			scores[s] = dot(q, head(k[s], kvHead, dim)) / math.Sqrt(float64(dim))
			top = max(top, scores[s])
		}
	}
	sum := 0.0
	for s, visible := range mask {
		if !visible {
			continue
		}
		p := math.Exp(scores[s] - top)
		sum += p
		for i, e := range head(v[s], kvHead, dim) {
			out[i] += p * e
		}
	}
	for i := range out {
		out[i] /= sum
	}
}

// heads projects to queries, keys or values: bias, norm and rotation included.
// norm is 0 for values, which have neither norm nor rotation.
func (r *Reference) heads(in [][]float64, proj, bias, norm Role, layer int) ([][]float64, error) {
	m := r.m
	y, err := r.project(in, proj, layer)
	if err != nil {
		return nil, err
	}
	if m.QKVBias {
		b, err := r.vector(bias, layer)
		if err != nil {
			return nil, err
		}
		for t := range y {
			add([][]float64{y[t]}, [][]float64{b})
		}
	}
	if norm == 0 {
		return y, nil
	}
	var gain []float64
	if m.QKNorm {
		if gain, err = r.vector(norm, layer); err != nil {
			return nil, err
		}
	}
	for t := range y {
		for h := range len(y[t]) / m.HeadDim {
			one := head(y[t], h, m.HeadDim)
			if gain != nil {
				rmsNorm(one, gain, float64(m.NormEps))
			}
			m.Rope.Rotate(one, t)
		}
	}
	return y, nil
}

// Rotate applies the rotation of position t to one head's query or key, in
// place.
func (r *Rope) Rotate(x []float64, t int) {
	n := len(r.Frequencies)
	for i, f := range r.Frequencies {
		a, b := i, i+n
		if r.Interleaved {
			a, b = 2*i, 2*i+1
		}
		sin, cos := math.Sincos(float64(t) * f)
		x[a], x[b] = r.Scale*(x[a]*cos-x[b]*sin), r.Scale*(x[a]*sin+x[b]*cos)
	}
}

// feedForward adds the gated feed-forward network of one layer to x:
// down(silu(gate(x)) * up(x)).
func (r *Reference) feedForward(x [][]float64, layer int) error {
	in := clone(x)
	if err := r.norm(in, FFNNorm, layer); err != nil {
		return err
	}
	gate, err := r.project(in, FFNGate, layer)
	if err != nil {
		return err
	}
	up, err := r.project(in, FFNUp, layer)
	if err != nil {
		return err
	}
	for t := range gate {
		for i, g := range gate[t] {
			gate[t][i] = g / (1 + math.Exp(-g)) * up[t][i]
		}
	}
	y, err := r.project(gate, FFNDown, layer)
	if err != nil {
		return err
	}
	add(x, y)
	return nil
}

// norm applies an RMSNorm to every token, in place.
func (r *Reference) norm(x [][]float64, role Role, layer int) error {
	gain, err := r.vector(role, layer)
	if err != nil {
		return err
	}
	for t := range x {
		rmsNorm(x[t], gain, float64(r.m.NormEps))
	}
	return nil
}

func rmsNorm(x, gain []float64, eps float64) {
	scale := 1 / math.Sqrt(dot(x, x)/float64(len(x))+eps)
	for i := range x {
		x[i] *= scale * gain[i]
	}
}

func (r *Reference) vector(role Role, layer int) ([]float64, error) {
	t, err := r.m.Tensor(r.src, role, layer)
	if err != nil {
		return nil, err
	}
	v, err := t.Float32s()
	return widen(v), err
}

// project multiplies every token's vector with a projection: [tokens][in] to
// [tokens][out].
func (r *Reference) project(x [][]float64, role Role, layer int) ([][]float64, error) {
	w, err := r.m.Tensor(r.src, role, layer)
	if err != nil {
		return nil, err
	}
	out, in := w.Shape[0], w.Shape[1]
	y := make([][]float64, len(x))
	for t := range y {
		y[t] = make([]float64, out)
	}
	size := w.Type.RowBytes(in)
	// Four rows at a time, so that each token's vector is read a quarter as
	// often.
	groups := (out + 3) / 4
	errs := make([]error, groups)
	parallel(groups, func(g int) {
		var rows [4][]float64
		buf := make([]float32, in)
		for i := range rows {
			o := min(4*g+i, out-1)
			if errs[g] = weights.Dequantize(buf, w.Type, w.Data[o*size:(o+1)*size]); errs[g] != nil {
				return
			}
			rows[i] = widen(buf)
		}
		for t := range x {
			sums := dot4(&rows, x[t])
			copy(y[t][4*g:], sums[:])
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", w.Name, err)
	}
	return y, nil
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// dot4 returns the dot products of four rows with x.
func dot4(rows *[4][]float64, x []float64) [4]float64 {
	a, b, c, d := rows[0][:len(x)], rows[1][:len(x)], rows[2][:len(x)], rows[3][:len(x)]
	var s0, s1, s2, s3 float64
	for i, v := range x {
		s0 += a[i] * v
		s1 += b[i] * v
		s2 += c[i] * v
		s3 += d[i] * v
	}
	return [4]float64{s0, s1, s2, s3}
}

// head returns the part of a row of heads that belongs to head h.
func head(row []float64, h, dim int) []float64 { return row[h*dim : (h+1)*dim] }

func add(x, y [][]float64) {
	for t := range x {
		for i := range x[t] {
			x[t][i] += y[t][i]
		}
	}
}

func apply(x []float64, f func(float64) float64) {
	for i := range x {
		x[i] = f(x[i])
	}
}

func clone(x [][]float64) [][]float64 {
	out := make([][]float64, len(x))
	for t := range x {
		out[t] = append([]float64(nil), x[t]...)
	}
	return out
}

func widen(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// parallel calls f for 0 to n-1, in runs of neighbours on all cores.
func parallel(n int, f func(int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w * n / workers; i < (w+1)*n/workers; i++ {
				f(i)
			}
		})
	}
	wg.Wait()
}
