package modeltest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

// WriteFolder writes a model of the same weights as New makes into dir, as
// Hugging Face stores them: config.json and model.safetensors. Type must be F32,
// F16 or BF16. A llama read from there rotates other pairs than one from GGUF,
// as the rows are not permuted; Options.Metadata is not used.
func WriteFolder(tb testing.TB, dir string, o Options) {
	tb.Helper()
	o = o.withDefaults()
	c := o.config()
	names := make(map[string]string)
	for _, r := range c.Roles() {
		for layer := range o.Layers {
			names[ggufName(r, layer)] = hfName(r, layer)
		}
	}
	tensors := o.tensors(tb)
	for i, t := range tensors {
		tensors[i].Name = names[t.Name]
	}
	config, err := json.MarshalIndent(map[string]any{
		"model_type":              o.Architecture,
		"num_hidden_layers":       o.Layers,
		"hidden_size":             o.Hidden,
		"num_attention_heads":     o.Heads,
		"num_key_value_heads":     o.KVHeads,
		"head_dim":                o.HeadDim,
		"intermediate_size":       o.FFN,
		"vocab_size":              o.Vocab,
		"max_position_embeddings": o.Context,
		"rms_norm_eps":            1e-5,
		"rope_theta":              o.RopeBase,
		"tie_word_embeddings":     o.Tied,
		"hidden_act":              "silu",
	}, "", "  ")
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		tb.Fatal(err)
	}
	writeFile(tb, filepath.Join(dir, "model.safetensors"), func(f *os.File) error {
		return weightstest.WriteSafetensors(f, tensors)
	})
}

// writeFile creates a file and has it written.
func writeFile(tb testing.TB, path string, write func(*os.File) error) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := write(f); err != nil {
		tb.Fatalf("modeltest: %s: %v", path, err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

// hfName is the name of a role's tensor in Hugging Face's files, written out
// apart from package model's table so that a slip there is noticed.
func hfName(r model.Role, layer int) string {
	names := map[model.Role]string{
		model.TokenEmbedding: "model.embed_tokens.weight", model.OutputNorm: "model.norm.weight", model.Output: "lm_head.weight",
		model.AttnNorm: "input_layernorm.weight", model.AttnQ: "self_attn.q_proj.weight", model.AttnK: "self_attn.k_proj.weight",
		model.AttnV: "self_attn.v_proj.weight", model.AttnO: "self_attn.o_proj.weight", model.AttnQBias: "self_attn.q_proj.bias",
		model.AttnKBias: "self_attn.k_proj.bias", model.AttnVBias: "self_attn.v_proj.bias",
		model.AttnQNorm: "self_attn.q_norm.weight", model.AttnKNorm: "self_attn.k_norm.weight",
		model.FFNNorm: "post_attention_layernorm.weight", model.FFNGate: "mlp.gate_proj.weight",
		model.FFNUp: "mlp.up_proj.weight", model.FFNDown: "mlp.down_proj.weight",
	}
	if !r.PerLayer() {
		return names[r]
	}
	return fmt.Sprintf("model.layers.%d.%s", layer, names[r])
}
