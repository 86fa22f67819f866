package gateway

import (
	"github.com/gofiber/fiber/v2"
)

// tokenize answers POST /tokenize in the shapes of vLLM (prompt or messages) and
// of llama.cpp's server (content).
func (s *Server) tokenize(c *fiber.Ctx) error {
	body, t, e := s.visit(c)
	if e != nil {
		return e
	}
	defer t.leave()
	o, e := parseBody(body, s.opts.Limits.JSONDepth)
	if e != nil {
		return e
	}
	model, _ := o.text("model", 512)
	info, e := s.resolve(model)
	if e != nil {
		return e
	}
	withTexts := o.boolean("return_token_strs", false) || o.boolean("with_pieces", false)
	var ids []int32
	switch {
	case o.fields["messages"] != nil:
		p := decodeConversation(o, &s.opts.Limits)
		if o.err != nil {
			return o.err
		}
		if ids, e = s.chatPrompt(p); e != nil {
			return e
		}
	case o.fields["prompt"] != nil:
		text, _ := o.text("prompt", 0)
		special := o.boolean("add_special_tokens", true)
		if o.err != nil {
			return o.err
		}
		ids = s.engine.Tokenize(text, special, true)
	case o.fields["content"] != nil:
		text, _ := o.text("content", 0)
		special, parse := o.boolean("add_special", false), o.boolean("parse_special", true)
		if o.err != nil {
			return o.err
		}
		ids = s.engine.Tokenize(text, special, parse)
	default:
		return errorf(kindMissing, "prompt", "One of 'prompt', 'messages' and 'content' is required.")
	}

	b := append([]byte(nil), `{"count":`...)
	b = appendInt(b, len(ids))
	b = append(b, `,"max_model_len":`...)
	b = appendInt(b, info.Context)
	b = append(b, `,"tokens":[`...)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendInt(b, int(id))
	}
	b = append(b, ']')
	if withTexts {
		b = append(b, `,"token_strs":[`...)
		for i, id := range ids {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, tokenText(s.engine.TokenBytes(id), ""))
		}
		b = append(b, ']')
	}
	writeJSON(c.Context(), append(b, '}'))
	return nil
}

// detokenize answers POST /detokenize, with the text under vLLM's name and under
// llama.cpp's.
func (s *Server) detokenize(c *fiber.Ctx) error {
	body, t, e := s.visit(c)
	if e != nil {
		return e
	}
	defer t.leave()
	o, e := parseBody(body, s.opts.Limits.JSONDepth)
	if e != nil {
		return e
	}
	if o.fields["tokens"] == nil {
		return errorf(kindMissing, "tokens", "'tokens' is required.")
	}
	ids := o.tokens("tokens", s.opts.Limits.RequestTokens, s.engine.Vocab())
	if o.err != nil {
		return o.err
	}
	text := appendString(nil, s.engine.Detokenize(ids))
	b := append([]byte(nil), `{"prompt":`...)
	b = append(b, text...)
	b = append(b, `,"content":`...)
	b = append(b, text...)
	writeJSON(c.Context(), append(b, '}'))
	return nil
}
