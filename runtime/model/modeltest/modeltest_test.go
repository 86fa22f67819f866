package modeltest_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

func lastLogits(t *testing.T, m *model.Model, src weights.Source) []float64 {
	t.Helper()
	ref, err := model.NewReference(m, src)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, 40)
	for i := range tokens {
		tokens[i] = int32(i * 37 % m.Vocab)
	}
	out, err := ref.Logits(tokens, plan.NewDense(m.Shape()).Bind(len(tokens)))
	if err != nil {
		t.Fatal(err)
	}
	return out[len(out)-1]
}

// Logits of trained models have a standard deviation of 1 to 5.
func TestLogitsAreOfASaneSize(t *testing.T) {
	for arch, types := range map[string][]weights.Type{
		"llama": weights.Types(), "mistral": {weights.F32}, "qwen2": {weights.F32}, "qwen3": {weights.F32},
	} {
		for _, typ := range types {
			for _, tied := range []bool{false, true} {
				m, src := modeltest.New(t, modeltest.Options{Architecture: arch, Type: typ, Tied: tied})
				sum := 0.0
				logits := lastLogits(t, m, src)
				for _, x := range logits {
					sum += x * x
				}
				if rms := math.Sqrt(sum / float64(len(logits))); !(rms > 0.3 && rms < 5) {
					t.Errorf("%s in %v, tied %v: logits have a root mean square of %v", arch, typ, tied, rms)
				}
			}
		}
	}
}

func TestAFileIsTheModelInMemory(t *testing.T) {
	o := modeltest.Options{Type: weights.Q4_1, Embedding: weights.Q8_0, Seed: 9, Metadata: weights.Metadata{"tokenizer.ggml.model": "none"}}
	m, src := modeltest.New(t, o)
	path := filepath.Join(t.TempDir(), "m.gguf")
	modeltest.WriteGGUF(t, path, o)
	g, err := weights.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	back, err := model.FromGGUF(g.Metadata(), g)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m.Config, back.Config); diff != "" {
		t.Errorf("(-memory +file)\n%s", diff)
	}
	if s, _ := g.Metadata().String("tokenizer.ggml.model"); s != "none" {
		t.Errorf("the added key is %q", s)
	}
	if !cmp.Equal(lastLogits(t, m, src), lastLogits(t, back, g)) {
		t.Error("logits differ")
	}
}

func TestAFolderIsRead(t *testing.T) {
	for _, arch := range []string{"llama", "mistral", "qwen2", "qwen3"} {
		o := modeltest.Options{Architecture: arch, Type: weights.BF16, Tied: arch == "qwen3"}
		dir := t.TempDir()
		modeltest.WriteFolder(t, dir, o)
		f, err := weights.OpenFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		got, err := model.FromSource(f)
		if err != nil {
			t.Fatal(err)
		}
		m, src := modeltest.New(t, o)
		if arch == "qwen2" || arch == "qwen3" { // llama's rotation differs
			if !cmp.Equal(lastLogits(t, m, src), lastLogits(t, got, f)) {
				t.Errorf("%s: logits differ", arch)
			}
		}
		want := m.Config
		want.Name, want.Rope.Interleaved = "", false
		if diff := cmp.Diff(want, got.Config); diff != "" {
			t.Errorf("%s (-gguf +folder)\n%s", arch, diff)
		}
	}
}

func TestSeedsGiveDifferentWeights(t *testing.T) {
	m, a := modeltest.New(t, modeltest.Options{Seed: 1})
	_, b := modeltest.New(t, modeltest.Options{Seed: 2})
	_, again := modeltest.New(t, modeltest.Options{Seed: 1})
	if cmp.Equal(lastLogits(t, m, a), lastLogits(t, m, b)) {
		t.Error("seeds 1 and 2 give the same logits")
	}
	if !cmp.Equal(lastLogits(t, m, a), lastLogits(t, m, again)) {
		t.Error("seed 1 gives two models")
	}
}
