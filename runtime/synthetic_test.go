package runtime

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/sample"
)

func openTiny(t *testing.T, o Options) *Engine {
	t.Helper()
	o.Backend = "cpu"
	e, err := Open(t.Context(), "synthetic:tiny", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// The weights that the CPU has are those that the reference has, and what it makes of
// them is right. Only keys and values are rounded coarsely, to bfloat16, which changes
// them by 2^-9 at most; those of 3 layers add up in squares to sqrt(6)*2^-9.
func TestSyntheticModelAnswersLikeTheReference(t *testing.T) {
	e := openTiny(t, Options{KV: backend.KVBF16, Plans: []string{"uniform:50%,floor=128"}})
	ref, err := model.NewReference(e.model, e.files.source)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, 300)
	for i := range tokens {
		tokens[i] = int32(i * i * 31 % e.model.Vocab)
	}
	for _, p := range e.Plans() {
		want, err := ref.Logits(tokens, p.Bind(len(tokens)))
		if err != nil {
			t.Fatal(err)
		}
		var diff, size float64
		err = e.Evaluate(t.Context(), tokens, p.Name, func(position int, logits []float32) error {
			for i, x := range logits {
				d := float64(x) - want[position][i]
				diff, size = diff+d*d, size+want[position][i]*want[position][i]
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if distance := math.Sqrt(diff / size); !(distance < math.Sqrt(6)*0x1p-9) {
			t.Errorf("plan %s: the logits are %.4f from the reference's", p.Name, distance)
		} else {
			t.Logf("plan %s: %.4f", p.Name, distance)
		}
	}
}

func TestSyntheticModelTakesTextAndAnswersText(t *testing.T) {
	e := openTiny(t, Options{})
	if e.Name() != "synthetic-tiny" {
		t.Errorf("it is called %q: a colon would begin the name of a plan", e.Name())
	}
	prompt, err := e.ChatPrompt(chat.Input{Messages: UserMessage("hi"), AddGenerationPrompt: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Tokenizer().Decode(prompt, false), "user: hi\nassistant:"; got != want {
		t.Errorf("the prompt is %q, want %q", got, want)
	}
	events, err := e.Generate(t.Context(), Request{Prompt: prompt, MaxTokens: 20, IgnoreEOS: true, Sampling: sample.Params{Temperature: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for ev := range events {
		text.WriteString(ev.Text)
	}
	if text.Len() < 20 {
		t.Errorf("20 tokens became %q", text.String())
	}
}

func TestContextOfSyntheticModelsMayBeRaised(t *testing.T) {
	if got := openTiny(t, Options{}).Context(); got != 4096 {
		t.Errorf("the context is %d tokens", got)
	}
	if got := openTiny(t, Options{Context: 10000}).Context(); got != 10000 {
		t.Errorf("asked for 10000 tokens, the context is %d", got)
	}
}

func TestSyntheticModelsBeyondTheMemoryAreRefused(t *testing.T) {
	if totalMemory() > 2*141e9 {
		t.Skip("this machine has room for all of them")
	}
	_, err := Open(t.Context(), "synthetic:llama-3-70b", Options{Backend: "cpu"})
	if err == nil || !strings.Contains(err.Error(), "141.1 GB") || !strings.Contains(err.Error(), "--backend cuda") {
		t.Errorf("got %v", err)
	}
}

// Where the device does not say how it stores weights, they count as the source has them.
func TestWeightBytesCountEverythingOnceAndRowsOfTheEmbedding(t *testing.T) {
	e := openTiny(t, Options{})
	c := e.Model()
	want := int64(0)
	for _, name := range e.files.source.Names() {
		x, _ := e.files.source.Tensor(name)
		if name != "model.embed_tokens.weight" {
			want += int64(len(x.Data))
		}
	}
	for _, sequences := range []int{0, 1, 7} {
		if got, want := e.WeightBytes(sequences), want+int64(2*c.Hidden*sequences); got != want {
			t.Errorf("%d sequences: %d bytes, want %d", sequences, got, want)
		}
	}
}

func TestKVCacheShorterThanTheContextIsSaid(t *testing.T) {
	var log bytes.Buffer
	// 3 layers of 2 heads hold a page each for a block of a dense sequence: ten blocks.
	const pages = 60
	page := int64(openTiny(t, Options{}).PageBytes())
	e := openTiny(t, Options{KVBytes: pages * page, Plan: "dense", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := e.PlanContext(e.Plans()[0]); got != 640 {
		t.Errorf("%d pages hold %d tokens, want 640", pages, got)
	}
	if !strings.Contains(log.String(), "tokens=640 context=4096") {
		t.Errorf("the log says %s", &log)
	}
	if _, err := Open(t.Context(), "synthetic:tiny", Options{Backend: "cpu", KVBytes: page}); err == nil || !strings.Contains(err.Error(), "raise --kv-memory") {
		t.Errorf("a KV cache of one page: %v", err)
	}
}
