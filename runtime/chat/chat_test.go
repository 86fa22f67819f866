package chat

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moaserve/moaserve/runtime/chat/jinja"
)

func mustParse(t *testing.T, source string) *Template {
	t.Helper()
	tmpl, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestKnownTemplatesWriteTheirFormats(t *testing.T) {
	in := Input{
		Messages: json.RawMessage(`[
			{"role": "system", "content": "Be brief."},
			{"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "image_url"}, {"type": "text", "text": "there"}]},
			{"role": "assistant", "content": "Hello."},
			{"role": "user", "content": "Why?"}]`),
		AddGenerationPrompt: true, BOSToken: "<s>", EOSToken: "</s>",
	}
	for name, want := range map[string]string{
		"ChatML": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n" +
			"<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
		"llama-2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi there [/INST] Hello. </s><s>[INST] Why? [/INST]",
		"vicuna":  "<s>Be brief. USER: Hi there ASSISTANT: Hello.</s> USER: Why? ASSISTANT:",
	} {
		source, ok := Known(name)
		if !ok {
			t.Fatalf("%s is not known", name)
		}
		got, err := mustParse(t, source).Render(in)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if _, ok := Known("nonesuch"); ok {
		t.Error("a nonesuch template is known")
	}
}

func TestRaisedErrorHasTheTemplatesMessage(t *testing.T) {
	tmpl := mustParse(t, "{% for m in messages %}\n{{ raise_exception('bad role: ' ~ m.role) }}{% endfor %}")
	_, err := tmpl.Render(Input{Messages: json.RawMessage(`[{"role": "elf"}]`)})
	var raised *RaisedError
	if !errors.As(err, &raised) || raised.Message != "bad role: elf" || err.Error() != "bad role: elf" {
		t.Errorf("got %v", err)
	}
}

func TestRenderErrorsHaveTheLine(t *testing.T) {
	_, err := mustParse(t, "a\n{{ messages.x.y }}").Render(Input{Messages: json.RawMessage(`[]`)})
	var e *jinja.Error
	if !errors.As(err, &e) || e.Line != 2 {
		t.Errorf("got %v, want an error of line 2", err)
	}
}

func TestBadInputIsRefused(t *testing.T) {
	tmpl := mustParse(t, "{{ messages|length }}")
	list := json.RawMessage(`[{}]`)
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"no messages":         {Input{}, "messages"},
		"messages not JSON":   {Input{Messages: json.RawMessage(`[{]`)}, "messages"},
		"messages no array":   {Input{Messages: json.RawMessage(`{}`)}, "messages is not an array"},
		"message no object":   {Input{Messages: json.RawMessage(`[{}, "x"]`)}, "messages[1] is not an object"},
		"messages too deep":   {Input{Messages: json.RawMessage(strings.Repeat("[", 300) + strings.Repeat("]", 300))}, "nested"},
		"tools no array":      {Input{Messages: list, Tools: json.RawMessage(`"x"`)}, "tools is not an array"},
		"kwargs no object":    {Input{Messages: list, Kwargs: json.RawMessage(`[]`)}, "chat_template_kwargs"},
		"kwargs not JSON":     {Input{Messages: list, Kwargs: json.RawMessage(`{`)}, "chat_template_kwargs"},
		"kwargs set messages": {Input{Messages: list, Kwargs: json.RawMessage(`{"messages": []}`)}, `must not set "messages"`},
		"kwargs set tools":    {Input{Messages: list, Kwargs: json.RawMessage(`{"tools": []}`)}, `must not set "tools"`},
		"both ends":           {Input{Messages: list, AddGenerationPrompt: true, ContinueFinalMessage: true}, "exclude"},
	} {
		if _, err := tmpl.Render(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want ...%s...", name, err, c.want)
		}
	}
}

func TestVariablesOfATemplate(t *testing.T) {
	tmpl := mustParse(t, "{{ tools }} {{ documents }} {{ add_generation_prompt }} {{ bos_token }}{{ eos_token }} {{ a }} {{ strftime_now('%Y') }}")
	now := func() time.Time { return time.Date(2031, 1, 2, 0, 0, 0, 0, time.UTC) }
	messages := json.RawMessage(`[]`)
	for _, c := range []struct {
		in   Input
		want string
	}{
		{Input{Messages: messages, Now: now}, "None None False   2031"},
		{Input{Messages: messages, Tools: json.RawMessage("null"), Kwargs: json.RawMessage("null"), Now: now}, "None None False   2031"},
		{
			Input{Messages: messages, Tools: json.RawMessage(`[{"z": 1, "a": 2}]`), Kwargs: json.RawMessage(`{"a": 1.0, "add_generation_prompt": "x"}`), BOSToken: "<s>", EOSToken: "</s>", Now: now},
			"[{'z': 1, 'a': 2}] None x <s></s> 1.0 2031",
		},
	} {
		if got, err := tmpl.Render(c.in); err != nil || got != c.want {
			t.Errorf("got %q, %v, want %q", got, err, c.want)
		}
	}
}

func TestContinueFinalMessage(t *testing.T) {
	trimming := "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</>\n{% endfor %}"
	keeping := "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}"
	parts := "{% for m in messages %}<{{ m.role }}>{{ m.content|map(attribute='text')|join }}</>\n{% endfor %}"
	for _, c := range []struct {
		name, source, messages, want string
	}{
		{"plain", keeping, `[{"role": "u", "content": "a"}, {"role": "b", "content": "The answer"}]`, "<u>a</>\n<b>The answer"},
		{"earlier copy", keeping, `[{"role": "u", "content": "same"}, {"role": "b", "content": "same"}]`, "<u>same</>\n<b>same"},
		{"blanks kept", keeping, `[{"role": "b", "content": "x = "}]`, "<b>x = "},
		{"blanks trimmed", trimming, `[{"role": "b", "content": " x = "}]`, "<b>x ="},
		{"parts", parts, `[{"role": "b", "content": [{"text": "one "}, {"text": "two"}]}]`, "<b>one two"},
		{"missing", "nothing", `[{"role": "b", "content": "x"}]`, ""},
		{"no text", keeping, `[{"role": "b", "content": null}]`, ""},
		{"no messages", keeping, `[]`, ""},
	} {
		got, err := mustParse(t, c.source).Render(Input{Messages: json.RawMessage(c.messages), ContinueFinalMessage: true})
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestRenderIsSafeForConcurrentUse(t *testing.T) {
	golden := readGolden(t)
	tmpl := mustParse(t, readTemplate(t, "gpt_oss_like.jinja"))
	want, err := tmpl.Render(golden.Inputs[11].input())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if got, err := tmpl.Render(golden.Inputs[11].input()); err != nil || got != want {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzRender renders any template for any messages. Nothing may panic.
func FuzzRender(f *testing.F) {
	golden := readGolden(f)
	for _, name := range []string{"smollm2.jinja", "qwen25_tools.jinja", "parts_list.jinja", "chatml"} {
		for _, in := range golden.Inputs {
			f.Add(readTemplate(f, name), []byte(in.Messages), []byte(in.Tools), []byte(in.Kwargs), true)
		}
	}
	f.Fuzz(func(t *testing.T, source string, messages, tools, kwargs []byte, generate bool) {
		tmpl, err := Parse(source)
		if err != nil {
			return
		}
		in := Input{Messages: messages, Tools: tools, Kwargs: kwargs, AddGenerationPrompt: generate, ContinueFinalMessage: !generate, Now: goldenNow}
		first, err := tmpl.Render(in)
		if second, err2 := tmpl.Render(in); first != second || (err == nil) != (err2 == nil) {
			t.Fatalf("rendered %q, %v and then %q, %v", first, err, second, err2)
		}
	})
}
