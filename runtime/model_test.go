package runtime

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/internal/testmodel"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// open opens the real model, or skips.
func open(t *testing.T, o Options) *Engine {
	t.Helper()
	path := testmodel.Path(t)
	e, err := Open(t.Context(), path, o)
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

// answer is what came of a request.
type answer struct {
	text   string
	tokens []int32
	end    Event
}

func generate(t *testing.T, e *Engine, r Request) answer {
	t.Helper()
	events, err := e.Generate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	for ev := range events {
		a.text += ev.Text
		for _, tok := range ev.Tokens {
			a.tokens = append(a.tokens, tok.ID)
		}
		a.end = ev
	}
	if a.end.Kind != EventFinished || a.end.Err != nil {
		t.Fatalf("the last event is %+v", a.end)
	}
	return a
}

// The oracle is llama.cpp on the same weights dequantised to float32
// (bench/parity): neither side quantises activations to 8 bits, so greedy
// answers differ only where two tokens are nearly equal.
func TestGreedyAnswersEqualLlamaCpp(t *testing.T) {
	e := open(t, Options{Activations: backend.Int16})
	f, err := os.Open("testdata/greedy.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct{ Prompt, Greedy []int32 }
	}
	if err := json.NewDecoder(z).Decode(&golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) != 20 {
		t.Fatalf("%d cases, want 20", len(golden.Cases))
	}
	same := 0
	for i, c := range golden.Cases {
		a := generate(t, e, Request{Prompt: c.Prompt, Plan: "dense", MaxTokens: len(c.Greedy), IgnoreEOS: true})
		n := 0
		for n < len(a.tokens) && a.tokens[n] == c.Greedy[n] {
			n++
		}
		if n == len(c.Greedy) {
			same++
			continue
		}
		t.Logf("prompt %d, of %d tokens, parts after %d of %d tokens", i, len(c.Prompt), n, len(c.Greedy))
	}
	t.Logf("%d of %d answers are equal", same, len(golden.Cases))
	if same < 18 {
		t.Errorf("%d of 20 answers are equal, want at least 18", same)
	}
}

// An answer depends on its request alone: not on what runs beside it, how the
// prompt is cut, how many threads compute, or what ran in its pages before.
func TestAnswerDependsOnTheRequestAlone(t *testing.T) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog while the river runs on. ", 40)
	type want struct {
		r Request
		a answer
	}
	var wants []want
	alone := open(t, Options{Threads: 1, MaxSequences: 1})
	for i, plan := range []string{"dense", "moa-50", "moa-25", "moa-33"} {
		prompt := alone.Tokenizer().Encode(text[i*7:len(text)-i*100], tokenizer.EncodeOptions{})
		r := Request{Prompt: prompt, Plan: plan, MaxTokens: 40, IgnoreEOS: true, Sampling: sample.Params{Temperature: 0.9, TopP: 0.95, Seed: uint64(i), Logprobs: true}}
		wants = append(wants, want{r, generate(t, alone, r)})
	}
	together := open(t, Options{StepTokens: 100, MaxSequences: 8})
	type outcome struct {
		i int
		a answer
	}
	done := make(chan outcome)
	for range 2 { // twice, so that pages are used again
		for i, w := range wants {
			go func() { done <- outcome{i, generate(t, together, w.r)} }()
		}
		for range wants {
			o := <-done
			if w := wants[o.i]; !slices.Equal(o.a.tokens, w.a.tokens) || o.a.text != w.a.text {
				t.Errorf("%s: together %q, alone %q", w.r.Plan, o.a.text, w.a.text)
			}
		}
	}
}

func TestMaxTokensDoesNotChangeTheAnswer(t *testing.T) {
	e := open(t, Options{})
	prompt := e.Tokenizer().Encode(strings.Repeat("One thing after another, and then one more. ", 300), tokenizer.EncodeOptions{})
	short := generate(t, e, Request{Prompt: prompt, MaxTokens: 10, IgnoreEOS: true})
	long := generate(t, e, Request{Prompt: prompt, MaxTokens: 60, IgnoreEOS: true})
	if !slices.Equal(short.tokens, long.tokens[:10]) {
		t.Errorf("with max_tokens 10: %q, with 60: %q", short.text, long.text)
	}
}

func TestEndOfAnAnswer(t *testing.T) {
	e := open(t, Options{})
	chatPrompt, err := e.ChatPrompt(chat.Input{Messages: UserMessage("Say hello."), AddGenerationPrompt: true})
	if err != nil {
		t.Fatal(err)
	}
	count := e.Tokenizer().Encode("1, 2, 3, 4, 5, 6,", tokenizer.EncodeOptions{})

	a := generate(t, e, Request{Prompt: chatPrompt, MaxTokens: 200})
	if a.end.Reason != ReasonStop || a.end.Usage.PromptTokens != len(chatPrompt) || a.end.Usage.CompletionTokens != len(a.tokens)+1 {
		t.Errorf("end of generation: reason %q, usage %+v, %d tokens of text; the end token counts as generated", a.end.Reason, a.end.Usage, len(a.tokens))
	}
	if strings.Contains(a.text, "<|im_end|>") {
		t.Errorf("the text %q shows the end token", a.text)
	}
	a = generate(t, e, Request{Prompt: count, MaxTokens: 5})
	if a.end.Reason != ReasonLength || a.end.Usage.CompletionTokens != 5 || len(a.tokens) != 5 {
		t.Errorf("max_tokens: reason %q, usage %+v", a.end.Reason, a.end.Usage)
	}
	whole := generate(t, e, Request{Prompt: count, MaxTokens: 40, IgnoreEOS: true}).text
	stop := whole[len(whole)/2 : len(whole)/2+3]
	a = generate(t, e, Request{Prompt: count, MaxTokens: 40, IgnoreEOS: true, Stop: []string{stop}})
	before, _, _ := strings.Cut(whole, stop)
	if a.end.Reason != ReasonStop || a.text != before {
		t.Errorf("stop string %q: reason %q, text %q, want %q", stop, a.end.Reason, a.text, before)
	}
	if used := e.Stats().UsedPages; used != 0 {
		t.Errorf("%d pages are in use after all requests ended", used)
	}
}

func TestRefusals(t *testing.T) {
	e := open(t, Options{Context: 512, KVBytes: 8 << 20})
	var tooLong *ContextLengthError
	if _, err := e.Generate(t.Context(), Request{Prompt: make([]int32, 600)}); !errors.As(err, &tooLong) || tooLong.Context != 512 || tooLong.PromptTokens != 600 {
		t.Errorf("a prompt beyond the context gives %v", err)
	}
	if _, err := e.Generate(t.Context(), Request{Prompt: make([]int32, 480), MaxTokens: 20, Plan: "dense"}); !errors.As(err, &tooLong) || tooLong.Context >= 500 || tooLong.Context < 300 {
		// 8 MiB are 512 pages of 16 KiB: 5 blocks in each of 90 heads.
		t.Errorf("a request beyond the KV cache gives %v", err)
	}
	if _, err := e.Generate(t.Context(), Request{Prompt: []int32{1}, Plan: "none"}); !errors.Is(err, ErrUnknownPlan) {
		t.Errorf("an unknown plan gives %v", err)
	}
	if _, err := e.Generate(t.Context(), Request{Prompt: []int32{1 << 20}}); err == nil {
		t.Error("a token outside of the vocabulary is taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if events, err := e.Generate(ctx, Request{Prompt: []int32{1}}); err == nil {
		for range events { // it may also end at once
		}
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Generate(t.Context(), Request{Prompt: []int32{1}}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Drain a request gives %v", err)
	}
}

func TestPlansOfAnOpenedModel(t *testing.T) {
	e := open(t, Options{Plan: "uniform:25%"})
	var names []string
	for _, p := range e.Plans() {
		names = append(names, p.Name)
	}
	if want := []string{"uniform-25", "moa-50", "moa-33", "moa-25", "dense"}; !slices.Equal(names, want) {
		t.Errorf("plans %v, want %v", names, want)
	}
	for _, bad := range []string{"uniform:0%", "no-such-file.json", "../plans/none.json"} {
		if _, err := Open(t.Context(), e.files.path, Options{Plan: bad}); err == nil {
			t.Errorf("plan %q is taken", bad)
		}
	}
}
