package model

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/moaserve/moaserve/runtime/weights"
)

// ErrUnsupported is what errors.Is finds when a model is sound but has an
// architecture or a feature that is not implemented. The error names it.
var ErrUnsupported = errors.New("not supported")

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}

// roleName is a role's name in the two kinds of files. Names of roles inside a
// layer have a %d for its number.
type roleName struct {
	role     string // the exported name, for people
	gguf, hf string
}

var roleNames = [...]roleName{
	TokenEmbedding: {"TokenEmbedding", "token_embd.weight", "model.embed_tokens.weight"},
	OutputNorm:     {"OutputNorm", "output_norm.weight", "model.norm.weight"},
	Output:         {"Output", "output.weight", "lm_head.weight"},
	AttnNorm:       {"AttnNorm", "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight"},
	AttnQ:          {"AttnQ", "blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight"},
	AttnK:          {"AttnK", "blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight"},
	AttnV:          {"AttnV", "blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight"},
	AttnO:          {"AttnO", "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight"},
	AttnQBias:      {"AttnQBias", "blk.%d.attn_q.bias", "model.layers.%d.self_attn.q_proj.bias"},
	AttnKBias:      {"AttnKBias", "blk.%d.attn_k.bias", "model.layers.%d.self_attn.k_proj.bias"},
	AttnVBias:      {"AttnVBias", "blk.%d.attn_v.bias", "model.layers.%d.self_attn.v_proj.bias"},
	AttnQNorm:      {"AttnQNorm", "blk.%d.attn_q_norm.weight", "model.layers.%d.self_attn.q_norm.weight"},
	AttnKNorm:      {"AttnKNorm", "blk.%d.attn_k_norm.weight", "model.layers.%d.self_attn.k_norm.weight"},
	FFNNorm:        {"FFNNorm", "blk.%d.ffn_norm.weight", "model.layers.%d.post_attention_layernorm.weight"},
	FFNGate:        {"FFNGate", "blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight"},
	FFNUp:          {"FFNUp", "blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight"},
	FFNDown:        {"FFNDown", "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight"},
}

// String returns the role's Go name.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r].role
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// PerLayer reports whether every layer has a tensor with the role.
func (r Role) PerLayer() bool { return r >= AttnNorm }

func ggufName(r Role, layer int) string { return tensorName(r, roleNames[r].gguf, layer) }

func hfName(r Role, layer int) string { return tensorName(r, roleNames[r].hf, layer) }

func tensorName(r Role, pattern string, layer int) string {
	if r.PerLayer() {
		return fmt.Sprintf(pattern, layer)
	}
	return pattern
}

// Roles lists the roles that the model's tensors have, those outside the layers
// first. Output is left out when it is the token embedding.
func (c *Config) Roles() []Role {
	roles := make([]Role, 0, len(roleNames))
	for r := range Role(len(roleNames)) {
		switch r {
		case Output:
			if c.TiedEmbeddings {
				continue
			}
		case AttnQBias, AttnKBias, AttnVBias:
			if !c.QKVBias {
				continue
			}
		case AttnQNorm, AttnKNorm:
			if !c.QKNorm {
				continue
			}
		}
		roles = append(roles, r)
	}
	return roles
}

// TensorShape returns the shape of the tensor with that role, outermost
// dimension first; nil for values that are no Role.
func (c *Config) TensorShape(r Role) []int {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	switch r {
	case TokenEmbedding, Output:
		return []int{c.Vocab, c.Hidden}
	case OutputNorm, AttnNorm, FFNNorm:
		return []int{c.Hidden}
	case AttnQ:
		return []int{q, c.Hidden}
	case AttnK, AttnV:
		return []int{kv, c.Hidden}
	case AttnO:
		return []int{c.Hidden, q}
	case AttnQBias:
		return []int{q}
	case AttnKBias, AttnVBias:
		return []int{kv}
	case AttnQNorm, AttnKNorm:
		return []int{c.HeadDim}
	case FFNGate, FFNUp:
		return []int{c.FFN, c.Hidden}
	case FFNDown:
		return []int{c.Hidden, c.FFN}
	}
	return nil
}

// Tensor returns the tensor with that role, checked against the configuration:
// norms and biases are F32, F16 or BF16, and the shape is TensorShape(r).
func (m *Model) Tensor(src weights.Source, r Role, layer int) (weights.Tensor, error) {
	name := m.TensorName(r, layer)
	t, ok := src.Tensor(name)
	if !ok {
		return weights.Tensor{}, fmt.Errorf("tensor %q is missing", name)
	}
	want := m.TensorShape(r)
	if !slices.Equal(t.Shape, want) {
		return weights.Tensor{}, fmt.Errorf("tensor %q has shape %v, the model wants %v", name, t.Shape, want)
	}
	if len(want) == 1 && !t.Type.Float() {
		return weights.Tensor{}, fmt.Errorf("tensor %q: norms and biases are not stored as %v", name, t.Type)
	}
	return t, nil
}

// Check holds src against the configuration: every tensor that the model wants
// is there, with its shape, and there is none that the model does not know, for
// that would be a part of the network that nobody computes.
func (m *Model) Check(src weights.Source) error {
	known := make(map[string]bool)
	for _, r := range m.Roles() {
		layers := 1
		if r.PerLayer() {
			layers = m.Layers
		}
		for layer := range layers {
			if _, err := m.Tensor(src, r, layer); err != nil {
				return err
			}
			known[m.TensorName(r, layer)] = true
		}
	}
	for _, name := range src.Names() {
		if !known[name] && !m.harmless(name) {
			return unsupported("tensor %q is not part of a %s model as it is implemented", name, m.Architecture)
		}
	}
	return nil
}

// harmless reports whether a tensor without a role may be there.
func (m *Model) harmless(name string) bool {
	// The embedding again, under the name of the output projection that it
	// replaces.
	if m.TiedEmbeddings && name == m.names(Output, 0) {
		return true
	}
	return harmlessNames[name] || inverseFrequencies.MatchString(name)
}

// harmlessNames are tensors that repeat what the configuration says.
var harmlessNames = map[string]bool{
	ropeFreqsTensor: true, // read by FromGGUF
}

// inverseFrequencies matches the rotary frequencies that old checkpoints carry:
// they are computed from the configuration.
var inverseFrequencies = regexp.MustCompile(`^model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$`)
