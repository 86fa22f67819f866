package model

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/weights"
)

// ropeFreqsTensor holds, in GGUF files of Llama 3.1 and later, what each rotary
// frequency is divided by: the llama3 scaling, worked out by the converter.
const ropeFreqsTensor = "rope_freqs.weight"

// ggufArchitectures are the values of general.architecture that are run. The
// converters permute the query and key rows of llama so that rotary pairs are
// neighbours; Mistral's models are stored as llama.
var ggufArchitectures = map[string]struct{ interleaved, needsBias, qkNorm bool }{
	"llama":   {interleaved: true},
	"mistral": {interleaved: true},
	"qwen2":   {needsBias: true},
	"qwen3":   {qkNorm: true},
}

// ggufRefused are keys, below the architecture's prefix, of features that are
// not implemented. Present and not zero, they refuse the model.
var ggufRefused = []struct{ key, feature string }{
	{"expert_count", "mixture of experts"},
	{"attention.sliding_window_pattern", "sliding-window attention"},
	{"attention.scale", "a custom attention scale"},
	{"attention.clamp_kqv", "clamped queries, keys and values"},
	{"attn_logit_softcapping", "attention soft-capping"},
	{"final_logit_softcapping", "logit soft-capping"},
	{"logit_scale", "a logit scale"},
	{"residual_scale", "a residual scale"},
	{"embedding_scale", "an embedding scale"},
	{"nextn_predict_layers", "multi-token prediction layers"},
}

// FromGGUF reads the configuration of a GGUF file and checks the tensors of src
// against it (see [Model.Check]). An architecture or a feature that is not
// implemented gives an error that names it and is [ErrUnsupported].
func FromGGUF(md weights.Metadata, src weights.Source) (*Model, error) {
	if n, ok := md.Int("split.count"); ok && n > 1 {
		return nil, unsupported("a GGUF file split into %d parts: merge them first", n)
	}
	arch, ok := md.String("general.architecture")
	if !ok {
		return nil, fmt.Errorf("GGUF key %q is missing", "general.architecture")
	}
	traits, ok := ggufArchitectures[arch]
	if !ok {
		return nil, unsupported("architecture %q", arch)
	}
	k := &ggufKeys{md: md, arch: arch}
	m := &Model{names: ggufName}
	m.Architecture = arch
	m.Name, _ = md.String("general.name")
	m.QKNorm = traits.qkNorm
	_, hasBias := src.Tensor(ggufName(AttnQBias, 0))
	m.QKVBias = traits.needsBias || hasBias
	_, hasOutput := src.Tensor(ggufName(Output, 0))
	m.TiedEmbeddings = !hasOutput

	m.Layers = k.int("block_count")
	m.Hidden = k.int("embedding_length")
	m.Heads = k.int("attention.head_count")
	m.KVHeads = k.intOr("attention.head_count_kv", m.Heads)
	m.FFN = k.int("feed_forward_length")
	m.Context = k.int("context_length")
	m.Vocab = k.intOr("vocab_size", 0)
	if m.Vocab == 0 {
		if t, ok := src.Tensor(ggufName(TokenEmbedding, 0)); ok && len(t.Shape) == 2 {
			m.Vocab = t.Shape[0]
		}
	}
	m.HeadDim = k.intOr("attention.key_length", 0)
	if m.HeadDim == 0 && m.Heads > 0 {
		m.HeadDim = m.Hidden / m.Heads
	}
	m.NormEps = float32(k.float("attention.layer_norm_rms_epsilon"))
	if v := k.intOr("attention.value_length", m.HeadDim); v != m.HeadDim {
		return nil, unsupported("value heads of %d dimensions beside key heads of %d", v, m.HeadDim)
	}
	k.refuse(m.Context)
	if k.err != nil {
		return nil, k.err
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	if err := k.rope(&m.Config, src); err != nil {
		return nil, err
	}
	m.Rope.Interleaved = traits.interleaved
	if err := m.Check(src); err != nil {
		return nil, err
	}
	return m, nil
}

// ggufKeys reads keys below the architecture's prefix and keeps the first error.
type ggufKeys struct {
	md   weights.Metadata
	arch string
	err  error
}

func (k *ggufKeys) key(name string) string { return k.arch + "." + name }

func (k *ggufKeys) fail(err error) {
	if k.err == nil {
		k.err = err
	}
}

func (k *ggufKeys) int(name string) int {
	if _, ok := k.md[k.key(name)]; !ok {
		k.fail(fmt.Errorf("GGUF key %q is missing", k.key(name)))
		return 0
	}
	return k.intOr(name, 0)
}

// intOr returns the integer at name, or what it is when the key is not there.
// Numbers per layer are taken when all layers have the same.
func (k *ggufKeys) intOr(name string, absent int) int {
	key := k.key(name)
	value, ok := k.md[key]
	if !ok {
		return absent
	}
	if n, ok := k.md.Int(key); ok {
		return n
	}
	ns, ok := k.md.Ints(key)
	if !ok || len(ns) == 0 {
		k.fail(fmt.Errorf("GGUF key %q: %.40v is not an integer", key, value))
		return 0
	}
	for _, n := range ns {
		if n != ns[0] {
			k.fail(unsupported("%s differs between layers", key))
			return 0
		}
	}
	return ns[0]
}

func (k *ggufKeys) float(name string) float64 {
	if _, ok := k.md[k.key(name)]; !ok {
		k.fail(fmt.Errorf("GGUF key %q is missing", k.key(name)))
		return 0
	}
	return k.floatOr(name, 0)
}

func (k *ggufKeys) floatOr(name string, absent float64) float64 {
	key := k.key(name)
	value, ok := k.md[key]
	if !ok {
		return absent
	}
	x, ok := k.md.Float(key)
	if !ok {
		k.fail(fmt.Errorf("GGUF key %q: %.40v is not a number", key, value))
	}
	return x
}

// refuse fails on features that would change what the network computes.
func (k *ggufKeys) refuse(context int) {
	for _, f := range ggufRefused {
		switch v := k.md[k.key(f.key)].(type) {
		case nil:
		case bool:
			if v {
				k.fail(unsupported("%s (%s)", f.feature, k.key(f.key)))
			}
		default:
			if x, ok := k.md.Float(k.key(f.key)); !ok || x != 0 {
				k.fail(unsupported("%s (%s)", f.feature, k.key(f.key)))
			}
		}
	}
	if w := k.intOr("attention.sliding_window", 0); w > 0 && w < context {
		k.fail(unsupported("sliding-window attention (%s is %d)", k.key("attention.sliding_window"), w))
	}
	if causal, ok := k.md.Bool(k.key("attention.causal")); ok && !causal {
		k.fail(unsupported("attention that is not causal (%s)", k.key("attention.causal")))
	}
}

// rope reads the rotary embedding into c, whose numbers are valid.
func (k *ggufKeys) rope(c *Config, src weights.Source) error {
	p := ropeParams{
		dims:     k.intOr("rope.dimension_count", c.HeadDim),
		base:     k.floatOr("rope.freq_base", 10000),
		original: k.floatOr("rope.scaling.original_context_length", 0),
		betaFast: k.floatOr("rope.scaling.yarn_beta_fast", 32),
		betaSlow: k.floatOr("rope.scaling.yarn_beta_slow", 1),
	}
	if p.dims < 2 || p.dims > c.HeadDim || p.dims%2 != 0 {
		return fmt.Errorf("GGUF key %q: %d is not an even number up to the head dimension %d",
			k.key("rope.dimension_count"), p.dims, c.HeadDim)
	}
	if _, ok := k.md[k.key("rope.scaling.type")]; ok {
		if p.kind, ok = k.md.String(k.key("rope.scaling.type")); !ok {
			return fmt.Errorf("GGUF key %q is not a string", k.key("rope.scaling.type"))
		}
	}
	p.factor = k.floatOr("rope.scaling.factor", 0)
	if p.kind == "none" {
		p.kind = ""
	}
	// The key of old files, which scale linearly.
	if old := k.floatOr("rope.scale_linear", 1); p.kind == "" && old != 1 {
		p.kind, p.factor = "linear", old
	}
	if p.kind == "yarn" {
		if p.original == 0 {
			p.original = float64(c.Context)
		}
		// Here the attention factor multiplies the paper's.
		if a := k.floatOr("rope.scaling.attn_factor", 1); a != 1 {
			p.attention = a * yarnAttention(p.factor, 1)
		}
	}
	if k.err != nil {
		return k.err
	}
	if t, ok := src.Tensor(ropeFreqsTensor); ok {
		// One number a pair, at most: nothing large is decoded on a bad file's
		// word.
		if len(t.Shape) != 1 || t.Shape[0] != p.dims/2 {
			return fmt.Errorf("tensor %q has shape %v, the model wants [%d]", t.Name, t.Shape, p.dims/2)
		}
		values, err := t.Float32s()
		if err != nil {
			return err
		}
		for _, v := range values {
			p.divisors = append(p.divisors, float64(v))
		}
	}
	var err error
	if c.Rope, err = p.rope(); err != nil {
		return err
	}
	c.Context = p.context(c.Context)
	return nil
}
