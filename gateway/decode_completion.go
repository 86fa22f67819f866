package gateway

import (
	"encoding/json"
	"math"
	"strconv"
)

// completionRequest is a decoded request for a plain completion.
type completionRequest struct {
	params
	prompts    []textPrompt // at least one
	addSpecial bool         // around text prompts
	echo       bool
}

// textPrompt is a prompt in text or in token ids.
type textPrompt struct {
	text string
	ids  []int32 // not nil when the prompt came as ids
}

// defaultCompletionTokens is OpenAI's default of max_tokens for plain completions.
const defaultCompletionTokens = 16

// decodeCompletion decodes the body of a plain completion.
func decodeCompletion(body []byte, l *Limits, vocab int) (*completionRequest, *apiError) {
	o, e := parseBody(body, l.JSONDepth)
	if e != nil {
		return nil, e
	}
	r := &completionRequest{}
	if raw := o.take("prompt"); raw == nil {
		o.fail(errorf(kindMissing, "prompt", "'prompt' is required."))
	} else {
		r.prompts = decodePrompts(o, raw, l, vocab)
	}
	r.addSpecial = o.boolean("add_special_tokens", true)
	r.params = decodeParams(o, l, vocab)
	r.maxTokens = int(o.integer("max_tokens", 1, math.MaxInt32, defaultCompletionTokens))
	r.checkLengths(o)
	if _, ok := o.fields["logprobs"]; ok {
		top := o.integer("logprobs", 0, int64(l.TopLogprobs), -1)
		r.sampling.Logprobs = top >= 0
		r.sampling.TopLogprobs = int(max(top, 0))
	}
	r.echo = o.boolean("echo", false)
	if r.echo && r.sampling.Logprobs {
		o.fail(errorf(kindUnsupported, "echo", "'echo' together with 'logprobs' is not supported: log-probabilities of the prompt are not computed."))
	}
	if bestOf := o.integer("best_of", 1, 128, int64(r.n)); bestOf != int64(r.n) && o.err == nil {
		o.fail(errorf(kindUnsupported, "best_of", "'best_of' is not supported: it must equal 'n'."))
	}
	o.refuse("suffix", "text is only continued, not filled in", `""`)
	r.ignored = o.rest()
	return r, o.err
}

// decodePrompts reads a string, an array of strings, an array of token ids or an
// array of such arrays.
func decodePrompts(o *object, raw json.RawMessage, l *Limits, vocab int) []textPrompt {
	const field = "prompt"
	if s, ok := parseString(raw); ok {
		return []textPrompt{{text: s}}
	}
	if !isArray(raw) {
		o.failType(field, "a string, an array of strings, an array of token ids or an array of such arrays")
		return nil
	}
	elements := o.elements(raw, field, l.RequestTokens)
	if o.err != nil {
		return nil
	}
	if len(elements) == 0 {
		o.failValue(field, "a non-empty array")
		return nil
	}
	if _, isNumber := parseNumber(elements[0]); isNumber {
		ids, ok := parseTokens(elements, vocab)
		if !ok {
			o.failValue(field, "token ids between 0 and "+strconv.Itoa(vocab-1))
			return nil
		}
		return []textPrompt{{ids: ids}}
	}
	if len(elements) > l.Prompts {
		o.fail(errorf(kindTooMany, field, "'%s' has %d elements; at most %d are accepted.", field, len(elements), l.Prompts))
		return nil
	}
	prompts := make([]textPrompt, 0, len(elements))
	for i, e := range elements {
		path := field + "[" + strconv.Itoa(i) + "]"
		if s, ok := parseString(e); ok {
			prompts = append(prompts, textPrompt{text: s})
			continue
		}
		if !isArray(e) {
			o.fail(errorf(kindInvalidType, path, "'%s' must be a string or an array of token ids.", path))
			return nil
		}
		list := o.elements(e, path, l.RequestTokens)
		if o.err != nil {
			return nil
		}
		ids, ok := parseTokens(list, vocab)
		if !ok {
			o.fail(errorf(kindInvalidValue, path, "'%s' must be an array of token ids between 0 and %d.", path, vocab-1))
			return nil
		}
		prompts = append(prompts, textPrompt{ids: ids})
	}
	return prompts
}
