//go:build cuda

package cuda

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/fakecuda"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/weights"
)

// benchShapes are the dimensions of known models.
var benchShapes = map[string]model.Config{
	"SmolLM2-135M": {Layers: 30, Hidden: 576, Heads: 9, KVHeads: 3, HeadDim: 64, FFN: 1536, Vocab: 49152},
	"Llama-3-8B":   {Layers: 32, Hidden: 4096, Heads: 32, KVHeads: 8, HeadDim: 128, FFN: 14336, Vocab: 128256},
}

// metadata describes the shape as a GGUF file does.
func metadata(c model.Config) weights.Metadata {
	n := func(i int) uint64 { return uint64(i) }
	return weights.Metadata{
		"general.architecture": "llama", "llama.block_count": n(c.Layers), "llama.embedding_length": n(c.Hidden),
		"llama.attention.head_count": n(c.Heads), "llama.attention.head_count_kv": n(c.KVHeads), "llama.attention.key_length": n(c.HeadDim),
		"llama.attention.value_length": n(c.HeadDim), "llama.rope.dimension_count": n(c.HeadDim), "llama.feed_forward_length": n(c.FFN),
		"llama.vocab_size": n(c.Vocab), "llama.context_length": n(131072), "llama.rope.freq_base": 500000.0,
		"llama.attention.layer_norm_rms_epsilon": 1e-5,
	}
}

// aliased is a source whose tensors are all the beginning of the same random
// bytes, so that a model of gigabytes is made in a second.
type aliased struct {
	names  []string
	shapes map[string][]int
	data   []byte
}

var _ weights.Source = (*aliased)(nil)

func (a *aliased) Tensor(name string) (weights.Tensor, bool) {
	shape, ok := a.shapes[name]
	t := weights.Tensor{Name: name, Type: weights.BF16, Shape: shape}
	if ok {
		t.Data = a.data[:2*t.Elems()]
	}
	return t, ok
}

func (a *aliased) Names() []string { return a.names }
func (*aliased) Close() error      { return nil }

func benchModel(b *testing.B, c model.Config) (*model.Model, weights.Source) {
	b.Helper()
	src := &aliased{shapes: make(map[string][]int), data: make([]byte, 2*c.Hidden*max(c.Vocab, c.FFN))}
	named, _ := modeltest.New(b, modeltest.Options{}) // for the names
	for _, r := range c.Roles() {
		for layer := range c.Layers {
			name := named.TensorName(r, layer)
			if _, ok := src.shapes[name]; !ok {
				src.names, src.shapes[name] = append(src.names, name), c.TensorShape(r)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := 0; i < len(src.data); i += 8 {
		// Four numbers of either sign between 1/128 and 1/32.
		binary.LittleEndian.PutUint64(src.data[i:], rng.Uint64()&0x80ff80ff80ff80ff|0x3c003c003c003c00)
	}
	m, err := model.FromGGUF(metadata(c), src)
	if err != nil {
		b.Fatal(err)
	}
	return m, src
}

// rig is a device with sequences of a length, whose keys and values are zero.
type rig struct {
	dev  backend.Device
	seqs []backend.Seq
	kv   int // bytes of keys and values that a decode step reads
}

func newRig(b *testing.B, m *model.Model, src weights.Source, p *plan.Plan, sequences, length, stepTokens int, variant string) *rig {
	b.Helper()
	o := backend.Options{
		KV: backend.KVBF16, MaxBatchTokens: max(stepTokens, sequences), MaxSequences: sequences, MaxContext: length + stepTokens + 1,
	}
	switch variant {
	case fp8Weights:
		o.Weights = backend.WeightsFP8
	case fp8Weights16:
		o.Weights, o.Activations = backend.WeightsFP8, backend.Int16
	}
	dev, err := New().Load(b.Context(), m, src, o)
	if err != nil {
		b.Fatal(err)
	}
	r := &rig{dev: dev}
	b.Cleanup(func() { _ = dev.Close() })
	l := p.Bind(length)
	blocks := (length+stepTokens)/plan.BlockSize + 1
	batch := &backend.Batch{}
	pages := 0
	for s := range sequences {
		for h := range l.Heads() {
			q := (length - 1) / plan.BlockSize
			for block := range blocks {
				page := 0 // what is out of sight may be anywhere
				if block == 0 || block >= l.Start(h, q) {
					page, pages = pages, pages+1
				}
				batch.Deltas = append(batch.Deltas, backend.TableDelta{Slot: int32(s), Head: int32(h), Block: int32(block), Page: int32(page)})
			}
			r.kv += l.Visible(h, q) * dev.PageBytes()
		}
		r.seqs = append(r.seqs, backend.Seq{Slot: s, Offset: s, Len: 1, Start: length - 1, Layout: l})
	}
	if _, err := dev.NewPool(pages); err != nil {
		b.Fatal(err)
	}
	batch.Tokens, batch.Seqs = []int32{1}, r.seqs[:1]
	if _, err := dev.Step(batch); err != nil {
		b.Fatal(err)
	}
	return r
}

// weightBytes is what a decode step reads of the weights.
func weightBytes(m *model.Model) int {
	layer := m.Hidden*(2*m.Heads+2*m.KVHeads)*m.HeadDim + 3*m.Hidden*m.FFN
	return 2 * (m.Layers*layer + m.Hidden*m.Vocab)
}

// Variants of a step: no kernel starts before the one ahead of it is done; tokens are
// drawn, not the likeliest; cuBLASLt multiplies few rows, too; weights are e4m3, and
// activations are or are not.
const (
	apart        = "/apart"
	sampled      = "/sampled"
	library      = "/library"
	fp8Weights   = "/fp8"
	fp8Weights16 = "/fp8-bf16-activations"
)

// BenchmarkDecode measures whole decode steps, greedy sampling included. GB/s
// counts weights and the visible keys and values once.
func BenchmarkDecode(b *testing.B) {
	if fakecuda.Present() {
		b.Skip("needs a GPU")
	}
	for _, name := range []string{"SmolLM2-135M", "Llama-3-8B"} {
		m, src := benchModel(b, benchShapes[name])
		for _, c := range []struct {
			density             float64
			sequences, position int
			variant             string
		}{
			{1, 1, 512, ""}, {1, 1, 512, library}, {1, 1, 8192, ""}, {1, 1, 8192, apart}, {0.5, 1, 8192, ""},
			{1, 30, 4096, ""}, {0.5, 30, 4096, ""}, {1, 64, 1024, ""}, {1, 64, 1024, sampled},
			{1, 1, 1024, ""}, {1, 1, 1024, fp8Weights}, {1, 8, 1024, ""}, {1, 8, 1024, library}, {1, 8, 1024, fp8Weights}, {1, 8, 1024, fp8Weights16},
			{1, 16, 1024, ""}, {1, 16, 1024, library}, {1, 64, 1024, fp8Weights}, {1, 64, 1024, fp8Weights16},
		} {
			b.Run(fmt.Sprintf("%s/density=%v/batch=%d/at=%d%s", name, c.density, c.sequences, c.position, c.variant), func(b *testing.B) {
				p := plan.Uniform("share", m.Shape(), plan.Rule{Beta: c.density})
				p.Floor = 0
				r := newRig(b, m, src, p, c.sequences, c.position, 1, c.variant)
				r.dev.(*Device).products.library = c.variant == library
				if c.variant == apart {
					r.dev.(*Device).overlap = false
				}
				batch := &backend.Batch{Seqs: r.seqs, Tokens: make([]int32, c.sequences)}
				var params sample.Params
				if c.variant == sampled {
					params = sample.Params{Temperature: 0.8, TopP: 0.9, TopK: 50}
				}
				for i := range c.sequences {
					batch.Tokens[i] = int32(i + 1)
					batch.Rows = append(batch.Rows, backend.Row{Seq: i, Sampler: sample.New(params, nil)})
				}
				step := func() {
					if _, err := r.dev.Step(batch); err != nil {
						b.Fatal(err)
					}
				}
				for range 3 { // algorithms are chosen, the graph is recorded
					step()
				}
				b.ResetTimer()
				for b.Loop() {
					step()
				}
				seconds := b.Elapsed().Seconds() / float64(b.N)
				b.ReportMetric(float64(c.sequences)/seconds, "tokens/s")
				b.ReportMetric(float64(r.dev.(*Device).weights.bytes+int64(r.kv))/seconds/1e9, "GB/s")
			})
		}
	}
}

// BenchmarkPrefill measures chunks of a prompt at a depth.
func BenchmarkPrefill(b *testing.B) {
	if fakecuda.Present() {
		b.Skip("needs a GPU")
	}
	for _, name := range []string{"SmolLM2-135M", "Llama-3-8B"} {
		m, src := benchModel(b, benchShapes[name])
		for _, c := range []struct {
			chunk, depth int
			variant      string
		}{
			{512, 0, ""}, {512, 8192, ""}, {2048, 0, ""}, {2048, 0, fp8Weights}, {2048, 0, fp8Weights16}, {4096, 8192, ""},
		} {
			b.Run(fmt.Sprintf("%s/chunk=%d/at=%d%s", name, c.chunk, c.depth, c.variant), func(b *testing.B) {
				r := newRig(b, m, src, plan.NewDense(m.Shape()), 1, c.depth+1, c.chunk, c.variant)
				seq := r.seqs[0]
				seq.Len, seq.Start = c.chunk, c.depth
				batch := &backend.Batch{
					Seqs: []backend.Seq{seq}, Tokens: make([]int32, c.chunk),
					Rows: []backend.Row{{Token: c.chunk - 1, Sampler: sample.New(sample.Params{}, nil)}},
				}
				step := func() {
					if _, err := r.dev.Step(batch); err != nil {
						b.Fatal(err)
					}
				}
				for range 3 {
					step()
				}
				b.ResetTimer()
				for b.Loop() {
					step()
				}
				seconds := b.Elapsed().Seconds() / float64(b.N)
				b.ReportMetric(float64(c.chunk)/seconds, "tokens/s")
				flops := float64(weightBytes(m)-2*m.Hidden*m.Vocab) * float64(c.chunk)
				flops += 4 * float64(m.Layers*m.Heads*m.HeadDim) * float64(c.chunk) * (float64(c.depth) + float64(c.chunk)/2)
				b.ReportMetric(flops/seconds/1e12, "TFLOP/s")
			})
		}
	}
}
