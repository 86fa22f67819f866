// Package chat turns the messages of a conversation into the text of a prompt,
// with the chat template that comes with a model.
//
// Templates are rendered as the transformers library's apply_chat_template does
// it, on the Jinja engine of package jinja: a template that works there gives
// the same text here. The variables of a template are messages, tools, documents,
// add_generation_prompt, bos_token, eos_token and the keyword arguments of the
// request; its functions are raise_exception and strftime_now.
package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/moaserve/moaserve/runtime/chat/jinja"
)

// Template is a parsed chat template. It is immutable and safe for concurrent
// use.
type Template struct{ t *jinja.Template }

// Parse reads a chat template. The error gives the line of a mistake
// (*jinja.Error).
func Parse(source string) (*Template, error) {
	t, err := jinja.Parse(source)
	if err != nil {
		return nil, err
	}
	return &Template{t}, nil
}

// Input is what a conversation is rendered from. JSON objects keep the order of
// their keys. Nothing is normalised: a template gets messages as they are, so
// that content may be a string, null or an array of parts, and the arguments of
// a tool call a string or an object.
type Input struct {
	Messages json.RawMessage // a JSON array of objects
	Tools    json.RawMessage // a JSON array, or nil
	// AddGenerationPrompt ends the prompt with the beginning of an answer.
	AddGenerationPrompt bool
	// ContinueFinalMessage cuts the prompt after the text of the last message,
	// so that the model continues it. It excludes AddGenerationPrompt.
	ContinueFinalMessage bool
	BOSToken, EOSToken   string // the texts of the special tokens, or ""
	// Kwargs are further variables: a JSON object (chat_template_kwargs), or nil.
	// They hide other variables but may not name messages or tools.
	Kwargs json.RawMessage
	Now    func() time.Time // for strftime_now; nil means time.Now
}

// RaisedError is a refusal by the template itself: it called raise_exception, for
// instance because roles do not alternate.
type RaisedError struct{ Message string }

// Error returns the template's message.
func (e *RaisedError) Error() string { return e.Message }

// Render returns the text of the prompt. A refusal by the template is a
// *RaisedError; other errors are of the input, or *jinja.Error with the line of
// the template.
func (t *Template) Render(in Input) (string, error) {
	if in.ContinueFinalMessage && in.AddGenerationPrompt {
		return "", errors.New("continue_final_message and add_generation_prompt exclude each other")
	}
	vars, messages, err := variables(in)
	if err != nil {
		return "", err
	}
	text, err := t.t.Render(vars, jinja.Limits{})
	if err != nil {
		var raised *RaisedError
		if errors.As(err, &raised) {
			return "", raised
		}
		return "", fmt.Errorf("the chat template: %w", err)
	}
	if in.ContinueFinalMessage {
		return continueFinal(text, messages)
	}
	return text, nil
}

// variables returns the variables of the template, and the messages.
func variables(in Input) (*jinja.Dict, *jinja.List, error) {
	messages, err := parseArray("messages", in.Messages)
	if err != nil {
		return nil, nil, err
	}
	for i, m := range messages.Items {
		if _, ok := m.(*jinja.Dict); !ok {
			return nil, nil, fmt.Errorf("messages[%d] is not an object", i)
		}
	}
	var tools jinja.Value = jinja.None
	if !isNull(in.Tools) {
		if tools, err = parseArray("tools", in.Tools); err != nil {
			return nil, nil, err
		}
	}
	vars := jinja.NewDict(16)
	vars.Set("messages", messages)
	vars.Set("tools", tools)
	vars.Set("documents", jinja.None)
	vars.Set("add_generation_prompt", in.AddGenerationPrompt)
	vars.Set("bos_token", in.BOSToken)
	vars.Set("eos_token", in.EOSToken)
	vars.Set("raise_exception", jinja.Func("raise_exception", []string{"message"}, raise))
	vars.Set("strftime_now", jinja.Func("strftime_now", []string{"format"}, strftimeNow(in.Now)))
	if isNull(in.Kwargs) {
		return vars, messages, nil
	}
	v, err := jinja.ParseJSON(in.Kwargs)
	if err != nil {
		return nil, nil, fmt.Errorf("chat_template_kwargs: %w", err)
	}
	kwargs, ok := v.(*jinja.Dict)
	if !ok {
		return nil, nil, errors.New("chat_template_kwargs is not an object")
	}
	for name, v := range kwargs.All() {
		if name == "messages" || name == "tools" {
			return nil, nil, fmt.Errorf("chat_template_kwargs must not set %q", name)
		}
		vars.Set(name, v)
	}
	return vars, messages, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func parseArray(name string, raw json.RawMessage) (*jinja.List, error) {
	v, err := jinja.ParseJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	list, ok := v.(*jinja.List)
	if !ok {
		return nil, fmt.Errorf("%s is not an array", name)
	}
	return list, nil
}

// raise is raise_exception(message).
func raise(args []jinja.Value) (jinja.Value, error) {
	message, err := jinja.Str(args[0])
	if err != nil {
		return nil, err
	}
	return nil, &RaisedError{message}
}

// strftimeNow is strftime_now(format).
func strftimeNow(now func() time.Time) func([]jinja.Value) (jinja.Value, error) {
	if now == nil {
		now = time.Now
	}
	return func(args []jinja.Value) (jinja.Value, error) {
		format, ok := args[0].(string)
		if !ok {
			return nil, errors.New("strftime_now needs a format string")
		}
		return jinja.Strftime(now(), format), nil
	}
}
