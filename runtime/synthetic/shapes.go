package synthetic

import (
	"encoding/json"
	"maps"
	"slices"
)

// shape holds the published dimensions of a model, as its config.json has them.
type shape struct {
	Layers  int `json:"num_hidden_layers"`
	Hidden  int `json:"hidden_size"`
	Heads   int `json:"num_attention_heads"`
	KVHeads int `json:"num_key_value_heads"`
	HeadDim int `json:"head_dim"`
	FFN     int `json:"intermediate_size"`
	Vocab   int `json:"vocab_size"`
	Context int `json:"max_position_embeddings"`
	// SequenceLength is the context after scaling, where it differs.
	SequenceLength int            `json:"max_sequence_length,omitempty"`
	RopeBase       float64        `json:"rope_theta"`
	RopeScaling    map[string]any `json:"rope_scaling,omitempty"`
	NormEps        float64        `json:"rms_norm_eps"`
	// FP8 has a GPU keep the projections in fp8 unless told otherwise.
	FP8 bool `json:"-"`
}

// vicunaScaling stretches the 4096 tokens that Llama-2 was trained with to 16384.
var vicunaScaling = map[string]any{"type": "linear", "factor": 4}

var shapes = map[string]shape{
	// lmsys/vicuna-7b-v1.5-16k
	"vicuna-7b": {
		Layers: 32, Hidden: 4096, Heads: 32, KVHeads: 32, HeadDim: 128, FFN: 11008, Vocab: 32000,
		Context: 4096, SequenceLength: 16384, RopeBase: 10000, RopeScaling: vicunaScaling, NormEps: 1e-5,
	},
	// lmsys/vicuna-13b-v1.5-16k
	"vicuna-13b": {
		Layers: 40, Hidden: 5120, Heads: 40, KVHeads: 40, HeadDim: 128, FFN: 13824, Vocab: 32000,
		Context: 4096, SequenceLength: 16384, RopeBase: 10000, RopeScaling: vicunaScaling, NormEps: 1e-5,
	},
	// meta-llama/Meta-Llama-3-8B
	"llama-3-8b": {
		Layers: 32, Hidden: 4096, Heads: 32, KVHeads: 8, HeadDim: 128, FFN: 14336, Vocab: 128256,
		Context: 8192, RopeBase: 500000, NormEps: 1e-5,
	},
	// meta-llama/Meta-Llama-3-70B. In bf16 it leaves a GPU of 140 GB no room for streams.
	"llama-3-70b": {
		Layers: 80, Hidden: 8192, Heads: 64, KVHeads: 8, HeadDim: 128, FFN: 28672, Vocab: 128256,
		Context: 8192, RopeBase: 500000, NormEps: 1e-5, FP8: true,
	},
	// For tests: grouped queries, and more than one layer and block of everything.
	"tiny": {
		Layers: 3, Hidden: 128, Heads: 4, KVHeads: 2, HeadDim: 64, FFN: 320, Vocab: 640,
		Context: 4096, RopeBase: 10000, NormEps: 1e-5,
	},
}

// Names lists the models there are, without the prefix, in alphabetical order.
func Names() []string { return slices.Sorted(maps.Keys(shapes)) }

// config returns the shape as a config.json.
func (s shape) config() ([]byte, error) {
	return json.Marshal(struct {
		ModelType string `json:"model_type"`
		shape
	}{"llama", s})
}
