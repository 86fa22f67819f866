package model_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

// hfSource invents the tensors that a config.json of the family calls for, with
// shapes but without data: enough for the configuration to be checked.
func hfSource(config string, extra ...weights.Tensor) *weightstest.Source {
	var c struct {
		ModelType string `json:"model_type"`
		Layers    int    `json:"num_hidden_layers"`
		Hidden    int    `json:"hidden_size"`
		Heads     int    `json:"num_attention_heads"`
		KVHeads   int    `json:"num_key_value_heads"`
		HeadDim   int    `json:"head_dim"`
		FFN       int    `json:"intermediate_size"`
		Vocab     int    `json:"vocab_size"`
		Tied      bool   `json:"tie_word_embeddings"`
	}
	// A config that is broken on purpose gets what could be read of it.
	_ = json.Unmarshal([]byte(config), &c)
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	tensors := extra
	add := func(name string, shape ...int) {
		tensors = append(tensors, weights.Tensor{Name: name, Type: weights.BF16, Shape: shape})
	}
	add("model.embed_tokens.weight", c.Vocab, c.Hidden)
	add("model.norm.weight", c.Hidden)
	if !c.Tied {
		add("lm_head.weight", c.Vocab, c.Hidden)
	}
	for i := range min(c.Layers, 100) {
		p := fmt.Sprintf("model.layers.%d.", i)
		add(p+"input_layernorm.weight", c.Hidden)
		add(p+"self_attn.q_proj.weight", q, c.Hidden)
		add(p+"self_attn.k_proj.weight", kv, c.Hidden)
		add(p+"self_attn.v_proj.weight", kv, c.Hidden)
		add(p+"self_attn.o_proj.weight", c.Hidden, q)
		if c.ModelType == "qwen2" {
			add(p+"self_attn.q_proj.bias", q)
			add(p+"self_attn.k_proj.bias", kv)
			add(p+"self_attn.v_proj.bias", kv)
		}
		if c.ModelType == "qwen3" {
			add(p+"self_attn.q_norm.weight", c.HeadDim)
			add(p+"self_attn.k_norm.weight", c.HeadDim)
		}
		add(p+"post_attention_layernorm.weight", c.Hidden)
		add(p+"mlp.gate_proj.weight", c.FFN, c.Hidden)
		add(p+"mlp.up_proj.weight", c.FFN, c.Hidden)
		add(p+"mlp.down_proj.weight", c.Hidden, c.FFN)
	}
	return weightstest.NewSource(tensors...)
}

// Configurations in the shapes of published ones.
const (
	vicunaConfig = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":4096,
		"intermediate_size":11008,"max_position_embeddings":4096,"max_sequence_length":16384,"num_attention_heads":32,
		"num_hidden_layers":32,"num_key_value_heads":32,"pad_token_id":0,"pretraining_tp":1,"rms_norm_eps":1e-05,
		"rope_scaling":{"factor":4.0,"type":"linear"},"tie_word_embeddings":false,"vocab_size":32000}`
	llama1Config = `{"architectures":["LLaMAForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":4096,
		"intermediate_size":11008,"max_position_embeddings":2048,"num_attention_heads":32,"num_hidden_layers":32,
		"rms_norm_eps":1e-06,"vocab_size":32000}`
	llama31Config = `{"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"model_type":"llama",
		"hidden_act":"silu","hidden_size":4096,"eos_token_id":[128001,128008,128009],"intermediate_size":14336,
		"max_position_embeddings":131072,"mlp_bias":false,"num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,
		"rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
		"original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":false,"vocab_size":128256}`
	llama32Config = `{"model_type":"llama","hidden_size":2048,"head_dim":64,"intermediate_size":8192,"max_position_embeddings":131072,
		"num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,"rms_norm_eps":1e-05,"tie_word_embeddings":true,
		"rope_parameters":{"factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"rope_theta":500000.0,
		"original_max_position_embeddings":8192,"rope_type":"llama3"},"vocab_size":128256}`
	mistralConfig = `{"architectures":["MistralForCausalLM"],"model_type":"mistral","hidden_act":"silu","hidden_size":4096,
		"head_dim":null,"intermediate_size":14336,"max_position_embeddings":32768,"num_attention_heads":32,"num_hidden_layers":32,
		"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":1000000.0,"sliding_window":null,"vocab_size":32768}`
	qwen25Config = `{"architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","hidden_act":"silu","hidden_size":3584,
		"intermediate_size":18944,"max_position_embeddings":32768,"max_window_layers":28,"num_attention_heads":28,"num_hidden_layers":28,
		"num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"rope_scaling":{"factor":4.0,
		"original_max_position_embeddings":32768,"type":"yarn"},"sliding_window":131072,"use_sliding_window":false,
		"tie_word_embeddings":false,"vocab_size":152064}`
	qwen3Config = `{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","attention_bias":false,"head_dim":128,"hidden_act":"silu",
		"hidden_size":1024,"intermediate_size":3072,"max_position_embeddings":40960,"max_window_layers":28,"num_attention_heads":16,
		"num_hidden_layers":28,"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,
		"sliding_window":null,"use_sliding_window":false,"tie_word_embeddings":true,"vocab_size":151936}`
	smolConfig = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":576,"is_llama_config":true,
		"intermediate_size":1536,"max_position_embeddings":8192,"num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,
		"rms_norm_eps":1e-05,"rope_interleaved":false,"rope_scaling":null,"rope_theta":100000,"tie_word_embeddings":true,"vocab_size":49152}`
)

func TestPublishedConfigsAreUnderstood(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   model.Config // without frequencies
		rope   string       // of rope.json
	}{
		"Vicuna 7B 16k": {vicunaConfig, model.Config{Architecture: "llama", Layers: 32, Hidden: 4096, Heads: 32, KVHeads: 32, HeadDim: 128,
			FFN: 11008, Vocab: 32000, Context: 16384, NormEps: 1e-5}, "linear"},
		"LLaMA 7B": {llama1Config, model.Config{Architecture: "llama", Layers: 32, Hidden: 4096, Heads: 32, KVHeads: 32, HeadDim: 128,
			FFN: 11008, Vocab: 32000, Context: 2048, NormEps: 1e-6}, ""},
		"Llama 3.1 8B": {llama31Config, model.Config{Architecture: "llama", Layers: 32, Hidden: 4096, Heads: 32, KVHeads: 8, HeadDim: 128,
			FFN: 14336, Vocab: 128256, Context: 131072, NormEps: 1e-5}, "llama3.1-8b"},
		"Llama 3.2 1B": {llama32Config, model.Config{Architecture: "llama", Layers: 16, Hidden: 2048, Heads: 32, KVHeads: 8, HeadDim: 64,
			FFN: 8192, Vocab: 128256, Context: 131072, NormEps: 1e-5, TiedEmbeddings: true}, "llama3.2-1b"},
		"Mistral 7B v0.3": {mistralConfig, model.Config{Architecture: "mistral", Layers: 32, Hidden: 4096, Heads: 32, KVHeads: 8, HeadDim: 128,
			FFN: 14336, Vocab: 32768, Context: 32768, NormEps: 1e-5}, ""},
		"Qwen2.5 7B": {qwen25Config, model.Config{Architecture: "qwen2", Layers: 28, Hidden: 3584, Heads: 28, KVHeads: 4, HeadDim: 128,
			FFN: 18944, Vocab: 152064, Context: 131072, NormEps: 1e-6, QKVBias: true}, "qwen2.5-yarn"},
		"Qwen3 0.6B": {qwen3Config, model.Config{Architecture: "qwen3", Layers: 28, Hidden: 1024, Heads: 16, KVHeads: 8, HeadDim: 128,
			FFN: 3072, Vocab: 151936, Context: 40960, NormEps: 1e-6, TiedEmbeddings: true, QKNorm: true}, ""},
		"SmolLM2 135M": {smolConfig, model.Config{Architecture: "llama", Layers: 30, Hidden: 576, Heads: 9, KVHeads: 3, HeadDim: 64,
			FFN: 1536, Vocab: 49152, Context: 8192, NormEps: 1e-5, TiedEmbeddings: true}, "plain"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := model.FromConfig([]byte(c.config), hfSource(c.config))
			if err != nil {
				t.Fatal(err)
			}
			if c.rope != "" {
				compareRope(t, m.Rope, c.rope)
			}
			got := m.Config
			if got.Rope.Interleaved || len(got.Rope.Frequencies) != got.HeadDim/2 {
				t.Errorf("interleaved is %v, with %d frequencies", got.Rope.Interleaved, len(got.Rope.Frequencies))
			}
			got.Rope = model.Rope{}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// compareRope holds frequencies against rope.json, which an independent script
// computed (testdata/make_golden.py). float64 powers and logarithms of the two
// languages differ in the last bits only.
func compareRope(t *testing.T, got model.Rope, name string) {
	t.Helper()
	var all map[string]struct {
		Frequencies []float64
		Scale       float64
	}
	readJSON(t, "testdata/rope.json", &all)
	want := all[name]
	if len(got.Frequencies) != len(want.Frequencies) {
		t.Fatalf("%d frequencies, not %d", len(got.Frequencies), len(want.Frequencies))
	}
	for i, w := range want.Frequencies {
		if math.Abs(got.Frequencies[i]-w) > 1e-14*w {
			t.Errorf("frequency %d is %v, not %v", i, got.Frequencies[i], w)
		}
	}
	if math.Abs(got.Scale-want.Scale) > 1e-14 {
		t.Errorf("scale is %v, not %v", got.Scale, want.Scale)
	}
}

// edit returns a config with fields replaced; a nil value removes one.
func edit(config string, fields map[string]any) string {
	var c map[string]any
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err) // the constants above are valid
	}
	maps.Copy(c, fields)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	out, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func TestConfigsThatAreNotImplementedAreRefusedByName(t *testing.T) {
	yarn := func(extra map[string]any) map[string]any {
		o := map[string]any{"rope_type": "yarn", "factor": 4}
		maps.Copy(o, extra)
		return map[string]any{"rope_scaling": o}
	}
	for _, c := range []struct {
		name   string
		fields map[string]any
		want   string
	}{
		{"another architecture", map[string]any{"model_type": "gemma2"}, `model_type "gemma2"`},
		{"an activation", map[string]any{"hidden_act": "gelu"}, `hidden_act "gelu"`},
		{"biases in the feed-forward network", map[string]any{"mlp_bias": true}, "mlp_bias"},
		{"experts", map[string]any{"num_local_experts": 8}, "mixture of experts (8"},
		{"a quantised checkpoint", map[string]any{"quantization_config": map[string]any{"quant_method": "gptq"}}, "quantization_config"},
		{"a sliding window", map[string]any{"sliding_window": 4096}, "sliding-window attention (sliding_window is 4096)"},
		{"a sliding layer", map[string]any{"layer_types": []string{"full_attention", "sliding_attention"}}, `layer type "sliding_attention"`},
		{"dynamic scaling", map[string]any{"rope_scaling": map[string]any{"type": "dynamic", "factor": 2}}, `rope scaling "dynamic"`},
		{"longrope", map[string]any{"rope_scaling": map[string]any{"type": "longrope", "long_factor": []int{1}}}, `rope scaling "longrope"`},
		{"an unknown rope parameter", yarn(map[string]any{"temperature": 2}), `rope parameter "temperature"`},
		{"rope parameters per layer type", map[string]any{"rope_parameters": map[string]any{"full_attention": map[string]any{}}}, `"full_attention"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := edit(smolConfig, c.fields)
			_, err := model.FromConfig([]byte(config), hfSource(config))
			if !errors.Is(err, model.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it not supported, with %q", err, c.want)
			}
		})
	}
}

func TestConfigsOutOfRangeAreRefused(t *testing.T) {
	scaling := func(fields map[string]any) map[string]any { return map[string]any{"rope_scaling": fields} }
	for _, c := range []struct {
		name   string
		fields map[string]any
		want   string
	}{
		{"no layers", map[string]any{"num_hidden_layers": nil}, "num_hidden_layers is missing"},
		{"zero layers", map[string]any{"num_hidden_layers": 0}, "layers: 0"},
		{"a million layers", map[string]any{"num_hidden_layers": 1_000_000}, "layers: 1000000"},
		{"a negative size", map[string]any{"hidden_size": -576}, "hidden size: -576"},
		{"an overflowing size", map[string]any{"intermediate_size": int64(1) << 62}, "feed-forward size"},
		{"a fraction", map[string]any{"vocab_size": 1.5}, "vocab_size"},
		{"no heads", map[string]any{"num_attention_heads": 0}, "query heads: 0"},
		{"more KV heads than heads", map[string]any{"num_key_value_heads": 18}, "KV heads: 18"},
		{"heads that do not divide", map[string]any{"num_key_value_heads": 2}, "9 query heads do not divide among 2"},
		{"an odd head", map[string]any{"head_dim": 63}, "head dimension 63 is odd"},
		{"an explicit head of nothing", map[string]any{"head_dim": 0}, "head dimension: 0"},
		{"a norm epsilon of zero", map[string]any{"rms_norm_eps": 0}, "norm epsilon"},
		{"a base of zero", map[string]any{"rope_theta": 0}, "rope base"},
		{"a huge base", map[string]any{"rope_theta": 1e300}, "rope base"},
		{"rotation of nothing", map[string]any{"partial_rotary_factor": 0}, "rotates 0 dimensions"},
		{"rotation of an odd number", map[string]any{"partial_rotary_factor": 0.05}, "rotates 3 dimensions"},
		{"linear without a factor", scaling(map[string]any{"type": "linear"}), "rope scaling factor: 0"},
		{"a factor that is text", scaling(map[string]any{"type": "linear", "factor": "4"}), `rope parameter "factor"`},
		{"a type that is a number", scaling(map[string]any{"rope_type": 4}), `rope parameter "rope_type"`},
		{"llama3 without its context", scaling(map[string]any{"type": "llama3", "factor": 8}), "rope original context: 0"},
		{"llama3 with factors in reverse", scaling(map[string]any{"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
			"original_max_position_embeddings": 8192}), "not above low_freq_factor"},
		{"yarn with a base of one", map[string]any{"rope_theta": 1, "rope_scaling": map[string]any{"type": "yarn", "factor": 2}}, "nothing to interpolate"},
		{"yarn with a negative beta", scaling(map[string]any{"type": "yarn", "factor": 2, "beta_fast": -1}), "beta_fast"},
		{"yarn with a negative attention factor", scaling(map[string]any{"type": "yarn", "factor": 2, "attention_factor": -1}), "attention factor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := edit(smolConfig, c.fields)
			_, err := model.FromConfig([]byte(config), hfSource(smolConfig))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestYaRNTakesEveryPublishedVariation(t *testing.T) {
	build := func(fields map[string]any) model.Rope {
		t.Helper()
		config := edit(mistralConfig, map[string]any{"max_position_embeddings": 4096, "rope_theta": 10000.0, "rope_scaling": fields})
		m, err := model.FromConfig([]byte(config), hfSource(config))
		if err != nil {
			t.Fatal(err)
		}
		if m.Context != 65536 {
			t.Errorf("the context is %d, not 16 times 4096", m.Context)
		}
		return m.Rope
	}
	compareRope(t, build(map[string]any{"type": "yarn", "factor": 16, "original_max_position_embeddings": 4096, "finetuned": true}), "llama2-yarn")
	// Without the original context it is the context of the file.
	compareRope(t, build(map[string]any{"rope_type": "yarn", "factor": 16}), "llama2-yarn")
	for name, c := range map[string]struct {
		fields map[string]any
		scale  float64
	}{
		"given":         {map[string]any{"attention_factor": 1.25}, 1.25},
		"equal mscales": {map[string]any{"mscale": 0.7, "mscale_all_dim": 0.7}, 1},
		"two mscales":   {map[string]any{"mscale": 2, "mscale_all_dim": 1}, (0.2*math.Log(16) + 1) / (0.1*math.Log(16) + 1)},
	} {
		maps.Copy(c.fields, map[string]any{"type": "yarn", "factor": 16})
		if got := build(c.fields).Scale; math.Abs(got-c.scale) > 1e-14 {
			t.Errorf("%s: scale %v, not %v", name, got, c.scale)
		}
	}
	rounded := build(map[string]any{"type": "yarn", "factor": 16})
	exact := build(map[string]any{"type": "yarn", "factor": 16, "truncate": false})
	if cmp.Equal(rounded.Frequencies, exact.Frequencies) {
		t.Error("truncate makes no difference")
	}
}

func TestPartOfAHeadIsRotated(t *testing.T) {
	config := edit(smolConfig, map[string]any{"partial_rotary_factor": 0.5})
	m, err := model.FromConfig([]byte(config), hfSource(config))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.Rope.Frequencies); n != 16 {
		t.Fatalf("%d frequencies for half of 64 dimensions", n)
	}
	x := make([]float64, 64)
	for i := range x {
		x[i] = float64(i)
	}
	m.Rope.Rotate(x, 3)
	// Pair 0 is (0, 16), rotated by 3 radians.
	if math.Abs(x[0]+16*math.Sin(3)) > 1e-12 || math.Abs(x[16]-16*math.Cos(3)) > 1e-12 {
		t.Errorf("pair 0 became %v, %v", x[0], x[16])
	}
	for i := 32; i < 64; i++ {
		if x[i] != float64(i) {
			t.Errorf("dimension %d was changed to %v", i, x[i])
		}
	}
}

func TestTensorsAreCheckedAgainstTheConfig(t *testing.T) {
	bf16 := func(name string, shape ...int) weights.Tensor {
		return weights.Tensor{Name: name, Type: weights.BF16, Shape: shape}
	}
	for _, c := range []struct {
		name  string
		extra weights.Tensor // found before the right one of the same name
		want  string
	}{
		{"a wrong shape", bf16("model.layers.3.mlp.up_proj.weight", 576, 1536),
			`tensor "model.layers.3.mlp.up_proj.weight" has shape [576 1536], the model wants [1536 576]`},
		{"a flat projection", bf16("model.layers.0.self_attn.o_proj.weight", 576*576), "has shape [331776], the model wants [576 576]"},
		{"a quantised norm", weights.Tensor{Name: "model.norm.weight", Type: weights.Q8_0, Shape: []int{576}}, "norms and biases are not stored as Q8_0"},
		{"a bias that nobody adds", bf16("model.layers.0.self_attn.o_proj.bias", 576), `"model.layers.0.self_attn.o_proj.bias" is not part of a llama model`},
		{"a query norm", bf16("model.layers.0.self_attn.q_norm.weight", 64), "is not part of"},
		{"a thirty-first layer", bf16("model.layers.30.input_layernorm.weight", 576), "is not part of"},
		{"only one of three biases", bf16("model.layers.0.self_attn.q_proj.bias", 576), `tensor "model.layers.1.self_attn.q_proj.bias" is missing`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := model.FromConfig([]byte(smolConfig), hfSource(smolConfig, c.extra))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	for _, harmless := range []string{"lm_head.weight", "model.layers.7.self_attn.rotary_emb.inv_freq"} {
		if _, err := model.FromConfig([]byte(smolConfig), hfSource(smolConfig, bf16(harmless, 32))); err != nil {
			t.Errorf("%s: %v", harmless, err)
		}
	}
}

func TestAllThreeBiasesOfALlamaAreUsed(t *testing.T) {
	var biases []weights.Tensor
	for i := range 30 {
		for name, n := range map[string]int{"q": 576, "k": 192, "v": 192} {
			biases = append(biases, weights.Tensor{Name: fmt.Sprintf("model.layers.%d.self_attn.%s_proj.bias", i, name), Type: weights.F32, Shape: []int{n}})
		}
	}
	m, err := model.FromConfig([]byte(smolConfig), hfSource(smolConfig, biases...))
	if err != nil {
		t.Fatal(err)
	}
	if !m.QKVBias {
		t.Error("the biases are ignored")
	}
}

func TestAMissingTensorIsNamed(t *testing.T) {
	full := hfSource(qwen3Config)
	for _, name := range full.Names() {
		if regexp.MustCompile(`layers\.([2-9]|1\d|2[0-6])\.`).MatchString(name) {
			continue // layers 0, 1 and the last stand for all
		}
		var rest []weights.Tensor
		for _, x := range full.Tensors() {
			if x.Name != name {
				rest = append(rest, x)
			}
		}
		_, err := model.FromConfig([]byte(qwen3Config), weightstest.NewSource(rest...))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("tensor %q is missing", name)) {
			t.Errorf("without %q: %v", name, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, c := range []string{vicunaConfig, llama31Config, llama32Config, mistralConfig, qwen25Config, qwen3Config, smolConfig} {
		f.Add([]byte(c))
	}
	src := hfSource(smolConfig)
	f.Fuzz(func(t *testing.T, config []byte) {
		m, err := model.FromConfig(config, src)
		if err != nil {
			return
		}
		if m.Rope.Scale <= 0 || len(m.Rope.Frequencies) > m.HeadDim/2 {
			t.Fatalf("accepted with rope %+v", m.Rope)
		}
		for i, x := range m.Rope.Frequencies {
			if !(x >= 0 && x <= 1e7) {
				t.Fatalf("frequency %d is %v", i, x)
			}
		}
	})
}
