package gateway

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
)

// chatRequest is a decoded request for a chat completion.
type chatRequest struct {
	params
	prompt ChatPrompt
}

// message is a message as templates get it. Empty members are left out, because
// templates ask whether they are defined.
type message struct {
	Role             string          `json:"role"`
	Content          string          `json:"content"`
	Name             string          `json:"name,omitempty"`
	ReasoningContent string          `json:"reasoning_content,omitempty"`
	ToolCalls        json.RawMessage `json:"tool_calls,omitempty"`
	ToolCallID       string          `json:"tool_call_id,omitempty"`
}

var roles = []string{"system", "developer", "user", "assistant", "tool"}

// decodeChat decodes the body of a chat completion.
func decodeChat(body []byte, l *Limits, vocab int) (*chatRequest, *apiError) {
	o, e := parseBody(body, l.JSONDepth)
	if e != nil {
		return nil, e
	}
	r := &chatRequest{}
	r.prompt = decodeConversation(o, l)
	r.params = decodeParams(o, l, vocab)
	r.maxTokens = int(o.integer("max_tokens", 1, math.MaxInt32, 0))
	// The newer name wins when both are given.
	if v := int(o.integer("max_completion_tokens", 1, math.MaxInt32, 0)); v > 0 {
		r.maxTokens = v
	}
	r.checkLengths(o)
	r.sampling.Logprobs = o.boolean("logprobs", false)
	r.sampling.TopLogprobs = int(o.integer("top_logprobs", 0, int64(l.TopLogprobs), 0))
	if r.sampling.TopLogprobs > 0 && !r.sampling.Logprobs {
		o.fail(errorf(kindInvalidValue, "top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true."))
	}
	o.drop("add_special_tokens") // the template writes them
	r.ignored = o.rest()
	return r, o.err
}

// decodeConversation takes what makes the prompt out of o.
func decodeConversation(o *object, l *Limits) ChatPrompt {
	p := ChatPrompt{AddGenerationPrompt: o.boolean("add_generation_prompt", true)}
	if raw, ok := o.fields["chat_template_kwargs"]; ok && len(raw) > l.KwargsBytes {
		o.fail(errorf(kindTooLong, "chat_template_kwargs", "'chat_template_kwargs' is longer than %d bytes.", l.KwargsBytes))
	} else if kwargs, present := o.object("chat_template_kwargs"); present && kwargs != nil {
		p.Kwargs = raw
	}
	decodeTools(o, l)

	elements, present := o.list("messages", l.Messages)
	switch {
	case !present:
		o.fail(errorf(kindMissing, "messages", "'messages' is required."))
	case len(elements) == 0:
		o.failValue("messages", "an array of at least one message")
	}
	messages := make([]message, 0, len(elements))
	for i, raw := range elements {
		path := "messages[" + strconv.Itoa(i) + "]"
		m, ok := parseObject(raw, path+".")
		if !ok {
			o.fail(errorf(kindInvalidType, path, "'%s' must be an object.", path))
			break
		}
		messages = append(messages, decodeMessage(m, l))
		if m.err != nil {
			o.fail(m.err)
			break
		}
	}
	if o.err != nil {
		return p
	}
	raw, err := json.Marshal(messages)
	if err != nil { // tool_calls came from a parser: it is valid JSON
		o.fail(newError(kindInternal))
		return p
	}
	p.Messages = raw
	return p
}

// decodeTools accepts tools only where they change nothing: with tool_choice
// "none" the model must not call any, and it is not told of them.
func decodeTools(o *object, l *Limits) {
	tools, _ := o.list("tools", l.Tools)
	choice := o.take("tool_choice")
	name, isString := parseString(choice)
	switch {
	case len(tools) > 0 && !(isString && name == "none"):
		o.fail(errorf(kindUnsupported, "tools", "'tools' are only accepted together with 'tool_choice': \"none\": tool calls are not available."))
	case choice == nil || (isString && (name == "none" || name == "auto")):
	default:
		o.fail(errorf(kindUnsupported, "tool_choice", "'tool_choice' must be \"none\" or \"auto\": tool calls are not available."))
	}
}

// decodeMessage decodes one message.
func decodeMessage(o *object, l *Limits) message {
	var m message
	role, present := o.text("role", 0)
	switch {
	case !present:
		o.fail(errorf(kindMissing, o.name("role"), "'%s' is required.", o.name("role")))
	case !slices.Contains(roles, role):
		o.failValue("role", "one of "+strings.Join(roles, ", "))
	}
	m.Role = role
	if role == "developer" { // the newer name of the same thing; templates know the older
		m.Role = "system"
	}
	m.Name, _ = o.text("name", 256)
	m.ReasoningContent, _ = o.text("reasoning_content", 0)
	if m.ReasoningContent == "" {
		m.ReasoningContent, _ = o.text("reasoning", 0)
	}
	if role == "assistant" {
		if raw, ok := o.fields["tool_calls"]; ok {
			if calls, present := o.list("tool_calls", l.Tools); present && len(calls) > 0 {
				m.ToolCalls = raw
			}
		}
		o.refuse("function_call", "use tool_calls")
		o.refuse("audio", "only text is understood")
	}
	if role == "tool" {
		if m.ToolCallID, present = o.text("tool_call_id", 256); !present {
			o.fail(errorf(kindMissing, o.name("tool_call_id"), "'%s' is required.", o.name("tool_call_id")))
		}
	}
	m.Content = decodeContent(o, l, role == "assistant")
	return m
}

// decodeContent reads a message's content: a string, or an array of text parts,
// which are joined by line breaks. Only an assistant's may be absent.
func decodeContent(o *object, l *Limits, optional bool) string {
	const field = "content"
	raw, ok := o.fields[field]
	if !ok || string(raw) == "null" {
		if !optional {
			o.fail(errorf(kindMissing, o.name(field), "'%s' is required.", o.name(field)))
		}
		return ""
	}
	if !isArray(raw) {
		if _, isString := parseString(raw); !isString {
			o.failType(field, "a string or an array of content parts")
			return ""
		}
		s, _ := o.text(field, 0)
		return s
	}
	elements, _ := o.list(field, l.ContentParts)
	var text strings.Builder
	for i, e := range elements {
		path := o.name(field) + "[" + strconv.Itoa(i) + "]"
		part, ok := parseObject(e, path+".")
		if !ok {
			o.fail(errorf(kindInvalidType, path, "'%s' must be an object.", path))
			return ""
		}
		member := "text"
		kind, _ := part.text("type", 0)
		switch {
		case part.err != nil:
		case kind == "text":
		case kind == "refusal" && optional:
			member = "refusal"
		case kind == "":
			part.fail(errorf(kindMissing, part.name("type"), "'%s' is required.", part.name("type")))
		default:
			part.fail(errorf(kindUnsupported, part.name("type"), "'%s' must be \"text\": only text is understood.", part.name("type")))
		}
		s, present := part.text(member, 0)
		if !present {
			part.fail(errorf(kindMissing, part.name(member), "'%s' is required.", part.name(member)))
		}
		if part.err != nil {
			o.fail(part.err)
			return ""
		}
		if i > 0 {
			text.WriteByte('\n')
		}
		text.WriteString(s)
	}
	return text.String()
}
