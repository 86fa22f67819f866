// Package modeltest makes small models with random weights, in memory or as
// files, for tests of everything that runs a model. They know nothing, but
// every part of the network contributes to their logits.
package modeltest

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

// Options say what model is made. Zero fields take the defaults, which differ
// between types whose blocks have 256 elements and the others.
type Options struct {
	Architecture string // "llama" (the default), "mistral", "qwen2", "qwen3"

	Layers  int // 2
	Hidden  int // 64; 256 for K-quants
	Heads   int // 4
	KVHeads int // 2
	HeadDim int // 16; 64 for K-quants
	FFN     int // 2*Hidden
	Vocab   int // 256
	Context int // 8192

	// Type stores the projections, Embedding the token embedding and the output
	// projection. F32, and Type.
	Type, Embedding weights.Type
	Tied            bool

	// RopeBase is the rotary base; 10000. Metadata may add scaling.
	RopeBase float64

	// Seed of the weights.
	Seed uint64

	// Metadata are added to the file's keys, a tokenizer for instance.
	Metadata weights.Metadata
}

func (o Options) withDefaults() Options {
	or := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	if o.Architecture == "" {
		o.Architecture = "llama"
	}
	if o.Type == 0 {
		o.Type = weights.F32
	}
	if o.Embedding == 0 {
		o.Embedding = o.Type
	}
	scale := 1
	if o.Type.BlockElems() > 64 || o.Embedding.BlockElems() > 64 {
		scale = 4
	}
	or(&o.Layers, 2)
	or(&o.Hidden, 64*scale)
	or(&o.Heads, 4)
	or(&o.KVHeads, 2)
	or(&o.HeadDim, 16*scale)
	or(&o.FFN, 2*o.Hidden)
	or(&o.Vocab, 256)
	or(&o.Context, 8192)
	if o.RopeBase == 0 {
		o.RopeBase = 10000
	}
	return o
}

// config is what the made model's configuration must be, as far as shapes go.
func (o Options) config() model.Config {
	return model.Config{
		Architecture: o.Architecture, Layers: o.Layers, Hidden: o.Hidden, Heads: o.Heads, KVHeads: o.KVHeads,
		HeadDim: o.HeadDim, FFN: o.FFN, Vocab: o.Vocab, Context: o.Context, TiedEmbeddings: o.Tied,
		QKVBias: o.Architecture == "qwen2", QKNorm: o.Architecture == "qwen3",
	}
}

// New makes a model and its weights. The same options give the same weights.
func New(tb testing.TB, o Options) (*model.Model, weights.Source) {
	tb.Helper()
	o = o.withDefaults()
	src := weightstest.NewSource(o.tensors(tb)...)
	m, err := model.FromGGUF(o.metadata(), src)
	if err != nil {
		tb.Fatalf("modeltest: %v", err)
	}
	return m, src
}

// WriteGGUF writes the model that New makes of the same options to a file.
func WriteGGUF(tb testing.TB, path string, o Options) {
	tb.Helper()
	o = o.withDefaults()
	tensors := o.tensors(tb)
	writeFile(tb, path, func(f *os.File) error {
		return weightstest.WriteGGUF(f, o.metadata(), tensors)
	})
}

func (o Options) metadata() weights.Metadata {
	md := weights.Metadata{
		"general.architecture": o.Architecture,
		"general.name":         "random",
	}
	for key, value := range map[string]any{
		"block_count":             uint64(o.Layers),
		"embedding_length":        uint64(o.Hidden),
		"attention.head_count":    uint64(o.Heads),
		"attention.head_count_kv": uint64(o.KVHeads),
		"attention.key_length":    uint64(o.HeadDim),
		"attention.value_length":  uint64(o.HeadDim),
		"feed_forward_length":     uint64(o.FFN),
		"vocab_size":              uint64(o.Vocab),
		"context_length":          uint64(o.Context),
		"rope.freq_base":          o.RopeBase,
		"rope.dimension_count":    uint64(o.HeadDim),
		// A float32, as files store it.
		"attention.layer_norm_rms_epsilon": float64(float32(1e-5)),
	} {
		md[o.Architecture+"."+key] = value
	}
	maps.Copy(md, o.Metadata)
	return md
}

// tensors draws all weights from a normal distribution that keeps activations
// near 1: a projection's standard deviation is one over the root of its inputs.
func (o Options) tensors(tb testing.TB) []weights.Tensor {
	tb.Helper()
	c := o.config()
	rng := rand.New(rand.NewPCG(o.Seed, 0x6d6f61))
	var out []weights.Tensor
	for layer := range o.Layers {
		for _, r := range c.Roles() {
			if layer > 0 && !r.PerLayer() {
				continue
			}
			t, err := o.tensor(rng, &c, r, layer)
			if err != nil {
				tb.Fatalf("modeltest: %v", err)
			}
			out = append(out, t)
		}
	}
	return out
}

func (o Options) tensor(rng *rand.Rand, c *model.Config, r model.Role, layer int) (weights.Tensor, error) {
	t := weights.Tensor{Name: ggufName(r, layer), Type: o.Type, Shape: c.TensorShape(r)}
	var mean, deviation float64
	switch {
	case len(t.Shape) == 1 && strings.HasSuffix(t.Name, ".bias"):
		t.Type, deviation = weights.F32, 0.1
	case len(t.Shape) == 1:
		t.Type, mean, deviation = weights.F32, 1, 0.1
	default:
		deviation = 1 / math.Sqrt(float64(t.Shape[1]))
		if r == model.TokenEmbedding || r == model.Output {
			t.Type = o.Embedding
		}
		if r == model.TokenEmbedding && !o.Tied {
			deviation = 1 // the residual stream itself
		}
	}
	values := make([]float32, t.Elems())
	for i := range values {
		values[i] = float32(mean + deviation*rng.NormFloat64())
	}
	if row := t.Shape[len(t.Shape)-1]; row%t.Type.BlockElems() != 0 {
		return t, fmt.Errorf("%s: rows of %d elements cannot be stored as %v", t.Name, row, t.Type)
	}
	var err error
	t.Data, err = weightstest.Quantize(t.Type, values)
	return t, err
}

// ggufName is the name of a role's tensor in GGUF files, written out apart from
// package model's table so that a slip there is noticed.
func ggufName(r model.Role, layer int) string {
	names := map[model.Role]string{
		model.TokenEmbedding: "token_embd.weight", model.OutputNorm: "output_norm.weight", model.Output: "output.weight",
		model.AttnNorm: "attn_norm.weight", model.AttnQ: "attn_q.weight", model.AttnK: "attn_k.weight",
		model.AttnV: "attn_v.weight", model.AttnO: "attn_output.weight", model.AttnQBias: "attn_q.bias",
		model.AttnKBias: "attn_k.bias", model.AttnVBias: "attn_v.bias", model.AttnQNorm: "attn_q_norm.weight",
		model.AttnKNorm: "attn_k_norm.weight", model.FFNNorm: "ffn_norm.weight", model.FFNGate: "ffn_gate.weight",
		model.FFNUp: "ffn_up.weight", model.FFNDown: "ffn_down.weight",
	}
	if !r.PerLayer() {
		return names[r]
	}
	return fmt.Sprintf("blk.%d.%s", layer, names[r])
}
