package runtime

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/tokenizer"
	"github.com/moaserve/moaserve/runtime/weights"
)

// writeFolder makes an ordinary Hugging Face folder: a small random Qwen2 with
// the tokenizer that the tokenizer's tests were trained with.
func writeFolder(t *testing.T, tokenizerConfig string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open("tokenizer/testdata/qwen2.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	vocabulary, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(vocabulary, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	modeltest.WriteFolder(t, dir, modeltest.Options{Architecture: "qwen2", Vocab: (tok.VocabSize() + 31) / 32 * 32, Type: weights.BF16})
	for name, data := range map[string][]byte{"tokenizer.json": vocabulary, "tokenizer_config.json": []byte(tokenizerConfig)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestHuggingFaceFolderIsServed(t *testing.T) {
	for name, config := range map[string]string{
		"template as a string":       `{"chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"}`,
		"templates by name":          `{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"}]}`,
		"no template, ChatML for it": `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFolder(t, config)
			e, err := Open(t.Context(), dir, Options{Plan: "uniform:50%"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			if e.Name() != filepath.Base(dir) || e.Model().Architecture != "qwen2" || e.Plans()[0].Name != "uniform-50" {
				t.Errorf("name %s, architecture %s, plan %s", e.Name(), e.Model().Architecture, e.Plans()[0].Name)
			}
			prompt, err := e.ChatPrompt(chat.Input{Messages: UserMessage("hello"), AddGenerationPrompt: true})
			if err != nil {
				t.Fatal(err)
			}
			if text := e.Tokenizer().Decode(prompt, false); !strings.Contains(text, "user") || !strings.Contains(text, "hello") {
				t.Errorf("the prompt is %q", text)
			}
			if a := generate(t, e, Request{Prompt: prompt, MaxTokens: 12, IgnoreEOS: true}); len(a.tokens) != 12 {
				t.Errorf("%d tokens were generated", len(a.tokens))
			}
		})
	}
}

func TestFolderThatCannotBeServedSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		damage func(dir string) error
		want   string
	}{
		"no default template":   {`{"chat_template": [{"name": "rag", "template": "x"}]}`, nil, "default"},
		"template is a number":  {`{"chat_template": 3}`, nil, "chat_template"},
		"template with a fault": {`{"chat_template": "{% for %}"}`, nil, "chat template"},
		"no tokenizer":          {`{}`, func(dir string) error { return os.Remove(filepath.Join(dir, "tokenizer.json")) }, "tokenizer"},
		"no weights":            {`{}`, func(dir string) error { return os.Remove(filepath.Join(dir, "model.safetensors")) }, "safetensors"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFolder(t, c.config)
			if c.damage != nil {
				if err := c.damage(dir); err != nil {
					t.Fatal(err)
				}
			}
			e, err := Open(t.Context(), dir, Options{})
			if err == nil {
				_ = e.Close()
				t.Fatal("it is served")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error %q does not mention %q", err, c.want)
			}
		})
	}
}
