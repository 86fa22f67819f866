package model_test

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/internal/testmodel"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

func readJSON(t testing.TB, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// openModel opens a GGUF file for the length of the test.
func openModel(t testing.TB, path string) (*model.Model, *weights.GGUF) {
	t.Helper()
	g, err := weights.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	m, err := model.FromGGUF(g.Metadata(), g)
	if err != nil {
		t.Fatal(err)
	}
	return m, g
}

func logits(t testing.TB, m *model.Model, src weights.Source, tokens []int32, l *plan.Layout) [][]float64 {
	t.Helper()
	ref, err := model.NewReference(m, src)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ref.Logits(tokens, l)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// golden is forward.json, made by an independent numpy implementation: see
// testdata/make_golden.py.
type golden struct {
	Tokens []int32
	Rows   []int
	Floor  int
	Heads  [][]int
	Rules  []plan.Rule
	Models map[string]struct{ Dense, Mixed [][]float64 }
}

// plans returns the two plans of the golden file for a model.
func (g *golden) plans(m *model.Model) map[string]*plan.Layout {
	mixed := &plan.Plan{
		Name: "mixed", Model: m.Shape(), Span: plan.SpanPosition, Floor: g.Floor, Rules: g.Rules, Heads: g.Heads,
	}
	n := len(g.Tokens)
	return map[string]*plan.Layout{"dense": plan.NewDense(m.Shape()).Bind(n), "mixed": mixed.Bind(n)}
}

// The file's logits are rounded to 12 decimals; sums of at most 48 float64
// terms near 1, taken in another order, differ by less than 1e-13 a layer.
const goldenTolerance = 1e-10

func TestReferenceAgreesWithAnIndependentImplementation(t *testing.T) {
	var g golden
	readJSON(t, "testdata/forward.json", &g)
	for arch, want := range g.Models {
		for name, rows := range map[string][][]float64{"dense": want.Dense, "mixed": want.Mixed} {
			t.Run(arch+"/"+name, func(t *testing.T) {
				m, src := openModel(t, "testdata/"+arch+".gguf")
				got := logits(t, m, src, g.Tokens, g.plans(m)[name])
				compareRows(t, got, g.Rows, rows, goldenTolerance)
			})
		}
	}
}

// The same weights under Hugging Face's names. Only llama's rows are permuted
// in GGUF files.
func TestBothKindsOfFilesComputeTheSame(t *testing.T) {
	var g golden
	readJSON(t, "testdata/forward.json", &g)
	names := strings.NewReplacer("blk.", "model.layers.", "attn_q_norm", "self_attn.q_norm", "attn_k_norm", "self_attn.k_norm",
		"attn_norm", "input_layernorm", "attn_q", "self_attn.q_proj", "attn_k", "self_attn.k_proj", "attn_v", "self_attn.v_proj",
		"attn_output", "self_attn.o_proj", "ffn_norm", "post_attention_layernorm", "ffn_gate", "mlp.gate_proj",
		"ffn_up", "mlp.up_proj", "ffn_down", "mlp.down_proj", "token_embd", "model.embed_tokens", "output_norm", "model.norm")
	configs := map[string]string{
		"qwen2": `{"model_type":"qwen2","num_hidden_layers":2,"hidden_size":32,"num_attention_heads":4,"num_key_value_heads":2,
			"intermediate_size":48,"vocab_size":40,"max_position_embeddings":4096,"rms_norm_eps":1e-5,"rope_theta":1000000.0,
			"tie_word_embeddings":true,"hidden_act":"silu","use_sliding_window":false,"sliding_window":128}`,
		"qwen3": `{"model_type":"qwen3","num_hidden_layers":2,"hidden_size":32,"num_attention_heads":4,"num_key_value_heads":2,
			"head_dim":16,"intermediate_size":48,"vocab_size":40,"max_position_embeddings":4096,"rms_norm_eps":1e-5,
			"rope_theta":1000000,"tie_word_embeddings":true,"layer_types":["full_attention","full_attention"]}`,
	}
	for arch, config := range configs {
		t.Run(arch, func(t *testing.T) {
			_, file := openModel(t, "testdata/"+arch+".gguf")
			var tensors []weights.Tensor
			for _, name := range file.Names() {
				x, _ := file.Tensor(name)
				x.Name = names.Replace(name)
				tensors = append(tensors, x)
			}
			src := weightstest.NewSource(tensors...)
			m, err := model.FromConfig([]byte(config), src)
			if err != nil {
				t.Fatal(err)
			}
			got := logits(t, m, src, g.Tokens, g.plans(m)["mixed"])
			compareRows(t, got, g.Rows, g.Models[arch].Mixed, goldenTolerance)
		})
	}
}

func compareRows(t *testing.T, got [][]float64, rows []int, want [][]float64, tolerance float64) {
	t.Helper()
	for i, row := range rows {
		for id, w := range want[i] {
			if d := math.Abs(got[row][id] - w); !(d <= tolerance) {
				t.Fatalf("row %d, token %d: %v, not %v", row, id, got[row][id], w)
			}
		}
	}
}

// llama.cpp ran on the decoded weights, in float32 (testdata/make_smollm2.py): 30
// layers of sums of up to 1536 terms, each rounded by 2^-24, with errors that
// grow as the root of their number: about 1e-5. A thousandth of the logits'
// standard deviation leaves room for that, and for nothing structural.
func TestReferenceAgreesWithLlamaCppOnARealModel(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	path := testmodel.Path(t)
	var want struct {
		SHA256 string
		Tokens []int32
		Rows   []struct {
			Row       int
			IDs       []int
			Logits    []float64
			Deviation float64
		}
	}
	readJSON(t, "testdata/smollm2.json", &want)
	digest, err := weights.SHA256(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if digest != want.SHA256 {
		t.Skipf("%s is another model", path)
	}
	m, src := openModel(t, path)
	got := logits(t, m, src, want.Tokens, plan.NewDense(m.Shape()).Bind(len(want.Tokens)))
	worst := 0.0
	for _, row := range want.Rows {
		for i, id := range row.IDs {
			worst = max(worst, math.Abs(got[row.Row][id]-row.Logits[i])/row.Deviation)
		}
	}
	t.Logf("largest difference: %.2g standard deviations", worst)
	if worst > 1e-3 {
		t.Errorf("logits differ by %.2g standard deviations", worst)
	}
}

func TestAnswersDoNotDependOnLaterTokens(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{Seed: 5})
	p := plan.Uniform("half", m.Shape(), plan.Rule{Beta: 0.5})
	p.Floor = plan.BlockSize
	tokens := make([]int32, 150)
	for i := range tokens {
		tokens[i] = int32(i * 31 % m.Vocab)
	}
	whole := logits(t, m, src, tokens, p.Bind(len(tokens)))
	part := logits(t, m, src, tokens[:100], p.Bind(len(tokens)))
	for i := range part {
		for id := range part[i] {
			if part[i][id] != whole[i][id] {
				t.Fatalf("row %d changes when more tokens follow", i)
			}
		}
	}
}

func TestMaskIsSinkAndSpanAndCausal(t *testing.T) {
	shape := plan.Shape{Layers: 1, QueryHeads: 1, KVHeads: 1, HeadDim: 64}
	p := plan.Uniform("one block", shape, plan.Rule{Alpha: 64})
	p.Floor = plan.BlockSize
	mask := model.Mask(p.Bind(256), 0, 256)
	for t0, row := range mask {
		for s, visible := range row {
			want := s <= t0 && (s < 64 || s/64 == t0/64)
			if visible != want {
				t.Fatalf("query %d, key %d: visible is %v", t0, s, visible)
			}
		}
	}
}

func TestRoundingKeysAndValuesMovesLogitsALittle(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{})
	tokens := []int32{1, 2, 3, 4, 5, 6, 7, 8}
	l := plan.NewDense(m.Shape()).Bind(len(tokens))
	exact := logits(t, m, src, tokens, l)
	for name, round := range map[string]func(float64) float64{"f16": model.RoundF16, "bf16": model.RoundBF16} {
		ref, err := model.NewReference(m, src)
		if err != nil {
			t.Fatal(err)
		}
		ref.RoundKV = round
		got, err := ref.Logits(tokens, l)
		if err != nil {
			t.Fatal(err)
		}
		worst := 0.0
		for i := range got {
			for id := range got[i] {
				worst = max(worst, math.Abs(got[i][id]-exact[i][id]))
			}
		}
		// bf16 keeps 8 bits: 2^-9 of a value near 1 in each of a few places.
		if worst == 0 || worst > 0.05 {
			t.Errorf("%s: logits move by %v", name, worst)
		}
	}
}

func TestReferenceRefusesWhatDoesNotFit(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{})
	ref, err := model.NewReference(m, src)
	if err != nil {
		t.Fatal(err)
	}
	dense := plan.NewDense(m.Shape()).Bind(1)
	for _, id := range []int32{-1, int32(m.Vocab)} {
		if _, err := ref.Logits([]int32{0, id}, dense); err == nil || !strings.Contains(err.Error(), "at position 1") {
			t.Errorf("token %d: %v", id, err)
		}
	}
	other := m.Shape()
	other.Layers++
	if _, err := ref.Logits([]int32{0}, plan.NewDense(other).Bind(1)); err == nil {
		t.Error("a layout of another model was taken")
	}
	if out, err := ref.Logits(nil, dense); err != nil || len(out) != 0 {
		t.Errorf("no tokens: %v, %v", out, err)
	}
	if _, err := model.NewReference(m, weightstest.NewSource()); err == nil {
		t.Error("no weights were taken for the model's")
	}
}
