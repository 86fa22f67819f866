package model_test

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/internal/testmodel"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

func TestTheRealModelsConfig(t *testing.T) {
	m, src := openModel(t, testmodel.Path(t))
	got := m.Config
	if !got.Rope.Interleaved || len(got.Rope.Frequencies) != 32 || got.Rope.Scale != 1 {
		t.Errorf("rope: %+v", got.Rope)
	}
	compareRope(t, got.Rope, "plain")
	got.Rope, got.Name = model.Rope{}, ""
	want := model.Config{Architecture: "llama", Layers: 30, Hidden: 576, Heads: 9, KVHeads: 3, HeadDim: 64, FFN: 1536,
		Vocab: 49152, Context: 8192, NormEps: 1e-5, TiedEmbeddings: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if name := m.TensorName(model.Output, 0); name != "token_embd.weight" {
		t.Errorf("the output projection of a tied model is %q", name)
	}
	if again, err := model.FromSource(src); err != nil || again.Layers != 30 {
		t.Errorf("FromSource: %v", err)
	}
}

func TestArchitecturesDifferInWhatTheyAdd(t *testing.T) {
	for arch, want := range map[string]struct{ interleaved, bias, norm bool }{
		"llama": {interleaved: true}, "mistral": {interleaved: true}, "qwen2": {bias: true}, "qwen3": {norm: true},
	} {
		m, _ := modeltest.New(t, modeltest.Options{Architecture: arch})
		if m.Rope.Interleaved != want.interleaved || m.QKVBias != want.bias || m.QKNorm != want.norm {
			t.Errorf("%s: interleaved %v, biases %v, norms %v", arch, m.Rope.Interleaved, m.QKVBias, m.QKNorm)
		}
	}
}

// ggufModel reads a tiny model's metadata after changes: a nil value removes a
// key.
func ggufModel(t *testing.T, arch string, change weights.Metadata, extra ...weights.Tensor) (*model.Model, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	modeltest.WriteGGUF(t, path, modeltest.Options{Architecture: arch})
	g, err := weights.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	md := g.Metadata()
	for key, value := range change {
		if value == nil {
			delete(md, key)
		} else {
			md[key] = value
		}
	}
	tensors := extra
	for _, name := range g.Names() {
		x, _ := g.Tensor(name)
		tensors = append(tensors, x)
	}
	return model.FromGGUF(md, weightstest.NewSource(tensors...))
}

func TestGGUFFeaturesThatAreNotImplementedAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		key   string
		value any
		want  string
	}{
		{"general.architecture", "mamba", `architecture "mamba"`},
		{"split.count", uint64(3), "split into 3 parts"},
		{"llama.expert_count", uint64(8), "mixture of experts (llama.expert_count)"},
		{"llama.attention.sliding_window", uint64(512), "sliding-window attention (llama.attention.sliding_window is 512)"},
		{"llama.attention.sliding_window_pattern", []bool{true, false}, "sliding-window"},
		{"llama.attention.scale", 0.5, "attention scale"},
		{"llama.logit_scale", 0.1, "logit scale"},
		{"llama.attention.causal", false, "not causal"},
		{"llama.attention.value_length", uint64(8), "value heads of 8"},
		{"llama.attention.head_count_kv", []int64{2, 1}, "head_count_kv differs between layers"},
		{"llama.rope.scaling.type", "longrope", `rope scaling "longrope"`},
	} {
		change := weights.Metadata{c.key: c.value, "llama.rope.scaling.factor": 4.0}
		_, err := ggufModel(t, "llama", change)
		if !errors.Is(err, model.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %v: got %v, want it not supported, with %q", c.key, c.value, err, c.want)
		}
	}
}

func TestGGUFNumbersOutOfRangeAreRefused(t *testing.T) {
	for _, c := range []struct {
		key   string
		value any
		want  string
	}{
		{"general.architecture", nil, "general.architecture"},
		{"llama.block_count", nil, `"llama.block_count" is missing`},
		{"llama.block_count", uint64(math.MaxUint64), "not an integer"},
		{"llama.block_count", int64(-1), "layers: -1"},
		{"llama.block_count", "two", "two is not an integer"},
		{"llama.embedding_length", uint64(1 << 40), "hidden size"},
		{"llama.attention.head_count", uint64(0), "query heads: 0"},
		{"llama.attention.head_count_kv", uint64(3), "4 query heads do not divide among 3"},
		{"llama.attention.key_length", int64(-16), "value heads of 16 dimensions beside key heads of -16"},
		{"llama.attention.layer_norm_rms_epsilon", nil, "is missing"},
		{"llama.attention.layer_norm_rms_epsilon", math.NaN(), "norm epsilon: NaN"},
		{"llama.rope.freq_base", math.Inf(1), "rope base: +Inf"},
		{"llama.rope.freq_base", true, "not a number"},
		{"llama.rope.dimension_count", uint64(17), "17 is not an even number up to"},
		{"llama.rope.dimension_count", uint64(18), "18 is not an even number up to"},
		{"llama.rope.scaling.type", uint64(1), "is not a string"},
		{"llama.rope.scaling.type", "linear", "rope scaling factor: 0"},
		{"llama.context_length", uint64(1 << 40), "context: "},
		{"llama.vocab_size", uint64(512), `"token_embd.weight" has shape [256 64], the model wants [512 64]`},
	} {
		_, err := ggufModel(t, "llama", weights.Metadata{c.key: c.value})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %v: got %v, want an error with %q", c.key, c.value, err, c.want)
		}
	}
}

func TestDefaultsOfGGUFKeys(t *testing.T) {
	m, err := ggufModel(t, "llama", weights.Metadata{
		"llama.vocab_size": nil, "llama.attention.key_length": nil, "llama.attention.value_length": nil,
		"llama.rope.freq_base": nil, "llama.rope.dimension_count": nil, "llama.attention.head_count_kv": []uint64{2, 2},
		"llama.attention.sliding_window": uint64(8192), // as long as the context: never binds
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.Vocab != 256 || m.HeadDim != 16 || m.KVHeads != 2 || m.Rope.Frequencies[1] != math.Pow(10000, -1.0/8) {
		t.Errorf("got %+v", m.Config)
	}
}

func TestRopeScalingOfGGUFKeys(t *testing.T) {
	yarn := weights.Metadata{
		"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0,
		"qwen2.rope.scaling.original_context_length": uint64(32768), "qwen2.rope.freq_base": 1e6,
	}
	m, src := modeltest.New(t, modeltest.Options{Architecture: "qwen2", HeadDim: 128, Metadata: yarn})
	compareRope(t, m.Rope, "qwen2.5-yarn")
	if m.Context != 131072 {
		t.Errorf("the context is %d, not 4 times 32768", m.Context)
	}
	if err := m.Check(src); err != nil {
		t.Error(err)
	}
	yarn["qwen2.rope.scaling.attn_factor"] = 0.5
	half, _ := modeltest.New(t, modeltest.Options{Architecture: "qwen2", HeadDim: 128, Metadata: yarn})
	if half.Rope.Scale != m.Rope.Scale/2 {
		t.Errorf("an attention factor of 0.5 turns %v into %v", m.Rope.Scale, half.Rope.Scale)
	}
	for name, md := range map[string]weights.Metadata{
		"new": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
		"old": {"llama.rope.scale_linear": 4.0},
	} {
		m, _ := modeltest.New(t, modeltest.Options{HeadDim: 128, Metadata: md})
		t.Run(name, func(t *testing.T) { compareRope(t, m.Rope, "linear") })
	}
	none, _ := modeltest.New(t, modeltest.Options{HeadDim: 64, RopeBase: 100000, Metadata: weights.Metadata{"llama.rope.scaling.type": "none"}})
	compareRope(t, none.Rope, "plain")
}

// The divisors that converters store for Llama 3 are as good as its formula.
// (That they divide is held by the golden llama.gguf.)
func TestRopeFreqsTensorIsChecked(t *testing.T) {
	tensor := func(n int, value float32) weights.Tensor {
		x := weights.Tensor{Name: "rope_freqs.weight", Type: weights.F32, Shape: []int{n}}
		values := make([]float32, n)
		for i := range values {
			values[i] = value
		}
		var err error
		if x.Data, err = weightstest.Quantize(x.Type, values); err != nil {
			t.Fatal(err)
		}
		return x
	}
	plain, err := ggufModel(t, "llama", nil)
	if err != nil {
		t.Fatal(err)
	}
	halved, err := ggufModel(t, "llama", nil, tensor(8, 2))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range plain.Rope.Frequencies {
		if halved.Rope.Frequencies[i] != f/2 {
			t.Errorf("frequency %d: %v, not half of %v", i, halved.Rope.Frequencies[i], f)
		}
	}
	for want, x := range map[string]weights.Tensor{
		"has shape [16], the model wants [8]": tensor(16, 1),
		"rope_freqs.weight[0]: 0":             tensor(8, 0),
		"rope_freqs.weight[0]: NaN":           tensor(8, float32(math.NaN())),
	} {
		if _, err := ggufModel(t, "llama", nil, x); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	md := weights.Metadata{"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0}
	if _, err := ggufModel(t, "llama", md, tensor(8, 2)); !errors.Is(err, model.ErrUnsupported) {
		t.Errorf("yarn on top of divisors: %v", err)
	}
}

func TestRolesHaveNames(t *testing.T) {
	if s := model.AttnKNorm.String(); s != "AttnKNorm" {
		t.Errorf("got %q", s)
	}
	if s := model.Role(99).String(); s != "Role(99)" {
		t.Errorf("got %q", s)
	}
}

func TestASourceWithoutConfigurationIsRefused(t *testing.T) {
	if _, err := model.FromSource(weightstest.NewSource()); err == nil {
		t.Error("accepted")
	}
}
