package chat

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// goldenNow is the time at which the golden file was rendered.
func goldenNow() time.Time { return time.Date(2024, 7, 9, 8, 5, 3, 42000, time.UTC) }

// goldenInput is a conversation of the golden file.
type goldenInput struct {
	Messages            json.RawMessage `json:"messages"`
	Tools               json.RawMessage `json:"tools"`
	AddGenerationPrompt *bool           `json:"add_generation_prompt"`
	Kwargs              json.RawMessage `json:"kwargs"`
}

func (g goldenInput) input() Input {
	in := Input{
		Messages: g.Messages, Tools: g.Tools, AddGenerationPrompt: true, Kwargs: g.Kwargs,
		BOSToken: "<s>", EOSToken: "</s>", Now: goldenNow,
	}
	if g.AddGenerationPrompt != nil {
		in.AddGenerationPrompt = *g.AddGenerationPrompt
	}
	return in
}

// goldenCase is a template's file name, a conversation, and what transformers'
// environment made of them: nil when it refused.
type goldenCase struct {
	Template string
	Input    int
	Want     *string
}

func (c *goldenCase) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&c.Template, &c.Input, &c.Want})
}

type goldenFile struct {
	Inputs []goldenInput
	Cases  []goldenCase
}

func readGolden(t testing.TB) goldenFile {
	t.Helper()
	f, err := os.Open("testdata/golden.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var g goldenFile
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		t.Fatal(err)
	}
	return g
}

// readTemplate returns a template of the test data, or a known one.
func readTemplate(t testing.TB, name string) string {
	t.Helper()
	if source, ok := Known(name); ok {
		return source
	}
	b, err := os.ReadFile(filepath.Join("testdata", "templates", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTemplatesMatchJinja2 renders every template for every conversation and
// compares byte for byte with jinja2 as transformers sets it up
// (testdata/generate.py). Where that refuses, so must we.
func TestTemplatesMatchJinja2(t *testing.T) {
	golden := readGolden(t)
	refused := 0
	for _, c := range golden.Cases {
		got, err := renderGolden(readTemplate(t, c.Template), golden.Inputs[c.Input])
		switch {
		case c.Want == nil && err == nil:
			t.Errorf("%s, input %d: got %q, want a refusal", c.Template, c.Input, got)
		case c.Want != nil && err != nil:
			t.Errorf("%s, input %d: %v", c.Template, c.Input, err)
		case c.Want != nil && got != *c.Want:
			t.Errorf("%s, input %d:\n got  %q\n want %q", c.Template, c.Input, got, *c.Want)
		}
		if c.Want == nil {
			refused++
		}
	}
	if len(golden.Cases) < 600 || refused > len(golden.Cases)/4 {
		t.Errorf("the golden file has %d cases, %d of them refusals", len(golden.Cases), refused)
	}
}

func renderGolden(source string, in goldenInput) (string, error) {
	tmpl, err := Parse(source)
	if err != nil {
		return "", err
	}
	return tmpl.Render(in.input())
}
