package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/moaserve/moaserve/runtime/weights"
)

// hfArchitectures are the values of model_type that are run.
var hfArchitectures = map[string]struct{ needsBias, qkNorm bool }{
	"llama":   {},
	"mistral": {},
	"qwen2":   {needsBias: true},
	"qwen3":   {qkNorm: true},
}

// hfConfig are the fields of config.json that matter. Pointers tell a field
// that is absent or null from one that is zero.
type hfConfig struct {
	ModelType     string   `json:"model_type"`
	Architectures []string `json:"architectures"`

	Layers  *int `json:"num_hidden_layers"`
	Hidden  *int `json:"hidden_size"`
	Heads   *int `json:"num_attention_heads"`
	KVHeads *int `json:"num_key_value_heads"`
	HeadDim *int `json:"head_dim"`
	FFN     *int `json:"intermediate_size"`
	Vocab   *int `json:"vocab_size"`
	Context *int `json:"max_position_embeddings"`
	// SequenceLength is where Vicuna keeps the context after scaling.
	SequenceLength *int `json:"max_sequence_length"`

	NormEps *float64 `json:"rms_norm_eps"`
	Tied    bool     `json:"tie_word_embeddings"`

	RopeBase       *float64   `json:"rope_theta"`
	RopeScaling    ropeObject `json:"rope_scaling"`
	RopeParameters ropeObject `json:"rope_parameters"` // both, since transformers 5
	PartialRotary  *float64   `json:"partial_rotary_factor"`

	Activation       *string         `json:"hidden_act"`
	MLPBias          bool            `json:"mlp_bias"`
	SlidingWindow    *int            `json:"sliding_window"`
	UseSlidingWindow *bool           `json:"use_sliding_window"`
	LayerTypes       []string        `json:"layer_types"`
	Experts          *int            `json:"num_experts"`
	LocalExperts     *int            `json:"num_local_experts"`
	Quantization     json.RawMessage `json:"quantization_config"`
}

// ropeObject is a rope_scaling or rope_parameters object, undecoded: what is in
// it depends on its type, and a key that is not known is refused.
type ropeObject map[string]json.RawMessage

// FromConfig reads the configuration of a Hugging Face folder, the bytes of its
// config.json, and checks the tensors of src against it (see [Model.Check]). An
// architecture or a feature that is not implemented gives an error that names it
// and is [ErrUnsupported].
func FromConfig(config []byte, src weights.Source) (*Model, error) {
	m, err := fromConfig(config, src)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if err := m.Check(src); err != nil {
		return nil, err
	}
	return m, nil
}

// FromSource reads the configuration of an open model file or folder.
func FromSource(src weights.Source) (*Model, error) {
	switch s := src.(type) {
	case *weights.GGUF:
		return FromGGUF(s.Metadata(), s)
	case *weights.Folder:
		return FromConfig(s.Config, s)
	}
	return nil, fmt.Errorf("%T does not say what model it is", src)
}

func fromConfig(config []byte, src weights.Source) (*Model, error) {
	var h hfConfig
	if err := json.Unmarshal(config, &h); err != nil {
		return nil, err
	}
	traits, ok := hfArchitectures[h.ModelType]
	if !ok {
		return nil, unsupported("model_type %q (architectures %.3q)", h.ModelType, h.Architectures)
	}
	m := &Model{names: hfName}
	m.Architecture = h.ModelType
	m.TiedEmbeddings = h.Tied
	m.QKNorm = traits.qkNorm
	_, hasBias := src.Tensor(hfName(AttnQBias, 0))
	m.QKVBias = traits.needsBias || hasBias
	for _, n := range []struct {
		name  string
		value *int
		into  *int
	}{
		{"num_hidden_layers", h.Layers, &m.Layers},
		{"hidden_size", h.Hidden, &m.Hidden},
		{"num_attention_heads", h.Heads, &m.Heads},
		{"intermediate_size", h.FFN, &m.FFN},
		{"vocab_size", h.Vocab, &m.Vocab},
		{"max_position_embeddings", h.Context, &m.Context},
	} {
		if n.value == nil {
			return nil, fmt.Errorf("%s is missing", n.name)
		}
		*n.into = *n.value
	}
	m.Context = max(m.Context, or(h.SequenceLength, 0))
	m.KVHeads = or(h.KVHeads, m.Heads)
	m.HeadDim = or(h.HeadDim, 0)
	if h.HeadDim == nil && m.Heads > 0 {
		m.HeadDim = m.Hidden / m.Heads
	}
	// 1e-6 is the default of every class of the family.
	m.NormEps = float32(or(h.NormEps, 1e-6))
	if err := h.refuse(m.Context); err != nil {
		return nil, err
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	p, err := h.rope(&m.Config)
	if err != nil {
		return nil, err
	}
	if m.Rope, err = p.rope(); err != nil {
		return nil, err
	}
	m.Context = p.context(m.Context)
	return m, nil
}

func or[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

// refuse names the features that would change what the network computes.
func (h *hfConfig) refuse(context int) error {
	if a := or(h.Activation, "silu"); a != "silu" && a != "swish" {
		return unsupported("hidden_act %q", a)
	}
	if h.MLPBias {
		return unsupported("mlp_bias")
	}
	if n := max(or(h.Experts, 0), or(h.LocalExperts, 0)); n > 0 {
		return unsupported("mixture of experts (%d experts)", n)
	}
	if len(h.Quantization) > 0 && !bytes.Equal(h.Quantization, []byte("null")) {
		return unsupported("quantization_config: only F32, F16 and BF16 are read from safetensors")
	}
	// A window that is never shorter than the context never binds.
	if w := or(h.SlidingWindow, 0); w > 0 && w < context && or(h.UseSlidingWindow, true) {
		return unsupported("sliding-window attention (sliding_window is %d)", w)
	}
	for _, kind := range h.LayerTypes {
		if kind != "full_attention" {
			return unsupported("layer type %q", kind)
		}
	}
	return nil
}

// rope reads the rotary embedding. Three generations of files say it in three
// ways: rope_theta and rope_scaling with "type", then with "rope_type", then
// rope_parameters with rope_theta inside.
func (h *hfConfig) rope(c *Config) (*ropeParams, error) {
	object := h.RopeScaling
	if len(h.RopeParameters) > 0 {
		object = h.RopeParameters
	}
	o := ropeReader{object: object}
	p := &ropeParams{
		base:     o.number("rope_theta", or(h.RopeBase, 10000)),
		factor:   o.number("factor", 0),
		original: o.number("original_max_position_embeddings", 0),
		lowFreq:  o.number("low_freq_factor", 0),
		highFreq: o.number("high_freq_factor", 0),
		betaFast: o.number("beta_fast", 32),
		betaSlow: o.number("beta_slow", 1),
	}
	o.get("rope_type", &p.kind)
	if p.kind == "" {
		o.get("type", &p.kind)
	}
	if p.kind == "default" {
		p.kind = ""
	}
	partial := o.number("partial_rotary_factor", or(h.PartialRotary, 1))
	attention := o.number("attention_factor", 0)
	mscale, mscaleAll := o.number("mscale", 0), o.number("mscale_all_dim", 0)
	truncate := true
	o.get("truncate", &truncate)
	if o.err != nil {
		return nil, o.err
	}
	switch p.kind {
	case "", "linear", "llama3", "yarn":
	default:
		return nil, unsupported("rope scaling %q", p.kind)
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if !ropeKeys[key] {
			return nil, unsupported("rope parameter %q", key)
		}
	}
	if err := inRange("partial_rotary_factor", partial, 0, 1); err != nil {
		return nil, err
	}
	p.dims = int(float64(c.HeadDim) * partial)
	if p.dims < 2 || p.dims%2 != 0 {
		return nil, fmt.Errorf("partial_rotary_factor %v rotates %d dimensions of %d", partial, p.dims, c.HeadDim)
	}
	if p.kind == "yarn" {
		if p.original == 0 {
			p.original = float64(c.Context)
		}
		p.noTruncate = !truncate
		p.attention = attention
		if attention == 0 && mscale != 0 && mscaleAll != 0 {
			p.attention = yarnAttention(p.factor, mscale) / yarnAttention(p.factor, mscaleAll)
		}
	}
	return p, nil
}

// ropeKeys are the keys that a ropeObject may have. finetuned is a remark of
// YaRN's authors.
var ropeKeys = map[string]bool{
	"rope_type": true, "type": true, "rope_theta": true, "factor": true, "original_max_position_embeddings": true,
	"low_freq_factor": true, "high_freq_factor": true, "beta_fast": true, "beta_slow": true, "attention_factor": true,
	"mscale": true, "mscale_all_dim": true, "truncate": true, "partial_rotary_factor": true, "finetuned": true,
}

// ropeReader decodes single keys and keeps the first error.
type ropeReader struct {
	object ropeObject
	err    error
}

// get decodes a key into v, which keeps its value when the key is absent or
// null.
func (o *ropeReader) get(key string, v any) {
	raw, ok := o.object[key]
	if !ok {
		return
	}
	if err := json.Unmarshal(raw, v); err != nil && o.err == nil {
		o.err = fmt.Errorf("rope parameter %q: %w", key, err)
	}
}

func (o *ropeReader) number(key string, absent float64) float64 {
	o.get(key, &absent)
	return absent
}
