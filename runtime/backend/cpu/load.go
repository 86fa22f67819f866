package cpu

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/attention"
	"github.com/moaserve/moaserve/runtime/backend/cpu/hugemem"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/backend/cpu/matmul"
	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
	"github.com/moaserve/moaserve/runtime/backend/cpu/workers"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// layer holds one transformer layer's weights, packed.
type layer struct {
	attnNorm, ffnNorm   []float32
	q, k, v, o          *matmul.Matrix
	qBias, kBias, vBias []float32 // nil unless the architecture has them
	qNorm, kNorm        []float32 // nil unless the architecture has them
	gate, up, down      *matmul.Matrix
}

// loader packs tensors and keeps the first error.
type loader struct {
	set isa.ISA
	m   *model.Model
	src weights.Source
	o   backend.Options
	// memory is where the packed weights are.
	memory hugemem.Arena
	done   int64
	size   int64
	err    error
}

func load(ctx context.Context, set isa.ISA, m *model.Model, src weights.Source, o backend.Options) (*Device, error) {
	l := &loader{set: set, m: m, src: src, o: o}
	d, err := l.load(ctx)
	if err != nil {
		return nil, errors.Join(err, l.memory.Free())
	}
	d.memory = l.memory
	return d, nil
}

func (l *loader) load(ctx context.Context) (*Device, error) {
	set, m, src, o := l.set, l.m, l.src, l.o
	for _, name := range src.Names() {
		if t, ok := src.Tensor(name); ok {
			l.size += int64(len(t.Data))
		}
	}
	d := &Device{
		cfg: m.Config, isa: set, opts: o,
		embedding: l.embedding(),
		outNorm:   l.vector(model.OutputNorm, 0),
		output:    l.matrix(model.Output, 0),
		layers:    make([]layer, m.Layers),
	}
	for i := range d.layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d.layers[i] = l.layer(i)
		if l.err != nil {
			return nil, fmt.Errorf("cpu: %w", l.err)
		}
	}
	if l.err != nil {
		return nil, fmt.Errorf("cpu: %w", l.err)
	}
	d.ops = vec.For(set)
	var err error
	if d.rope, err = d.ops.NewRope(m.Rope, m.HeadDim); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	d.kv = attention.Config{
		Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, KV: o.KV,
		Scale: float32(1 / math.Sqrt(float64(m.HeadDim))), ISA: set,
	}
	if err := d.kv.Validate(); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	d.workers = workers.New(o.Threads)
	d.tables = backend.NewPageTables(o.MaxSequences, d.cfg.Layers*d.cfg.KVHeads)
	d.pass.init(d)
	return d, nil
}

func (l *loader) layer(i int) layer {
	y := layer{
		attnNorm: l.vector(model.AttnNorm, i), ffnNorm: l.vector(model.FFNNorm, i),
		q: l.matrix(model.AttnQ, i), k: l.matrix(model.AttnK, i), v: l.matrix(model.AttnV, i), o: l.matrix(model.AttnO, i),
		gate: l.matrix(model.FFNGate, i), up: l.matrix(model.FFNUp, i), down: l.matrix(model.FFNDown, i),
	}
	if l.m.QKVBias {
		y.qBias, y.kBias, y.vBias = l.vector(model.AttnQBias, i), l.vector(model.AttnKBias, i), l.vector(model.AttnVBias, i)
	}
	if l.m.QKNorm {
		y.qNorm, y.kNorm = l.vector(model.AttnQNorm, i), l.vector(model.AttnKNorm, i)
	}
	return y
}

// tensor finds a tensor by role.
func (l *loader) tensor(r model.Role, i int) weights.Tensor {
	name := l.m.TensorName(r, i)
	t, ok := l.src.Tensor(name)
	if !ok && l.err == nil {
		l.err = fmt.Errorf("the model file has no tensor %q", name)
	}
	return t
}

// embedding returns the token embedding, which stays in the source's mapping.
func (l *loader) embedding() weights.Tensor {
	t := l.tensor(model.TokenEmbedding, 0)
	if !l.m.TiedEmbeddings {
		l.loaded(t) // a tied one is counted when it is packed as the output
	}
	return t
}

// matrix packs a projection for the kernels.
func (l *loader) matrix(r model.Role, i int) *matmul.Matrix {
	t := l.tensor(r, i)
	if l.err != nil {
		return nil
	}
	m, err := matmul.Pack(t, l.set, l.memory.Alloc)
	if err != nil {
		l.err = fmt.Errorf("packing tensor %q: %w", t.Name, err)
		return nil
	}
	l.loaded(t)
	return m
}

// vector dequantises a small tensor.
func (l *loader) vector(r model.Role, i int) []float32 {
	t := l.tensor(r, i)
	if l.err != nil {
		return nil
	}
	n := 1
	for _, s := range t.Shape {
		n *= s
	}
	v := make([]float32, n)
	if err := weights.Dequantize(v, t.Type, t.Data); err != nil {
		l.err = fmt.Errorf("reading tensor %q: %w", t.Name, err)
		return nil
	}
	l.loaded(t)
	return v
}

func (l *loader) loaded(t weights.Tensor) {
	l.done += int64(len(t.Data))
	if l.o.Progress != nil {
		l.o.Progress(min(l.done, l.size), l.size)
	}
}
