package gateway

import (
	"github.com/gofiber/fiber/v2"
)

// chatCompletions answers POST /v1/chat/completions.
func (s *Server) chatCompletions(c *fiber.Ctx) error {
	return s.generate(c, func(body []byte) (*job, *apiError) {
		r, e := decodeChat(body, &s.opts.Limits, s.engine.Vocab())
		if e != nil {
			return nil, e
		}
		ids, e := s.chatPrompt(r.prompt)
		if e != nil {
			return nil, e
		}
		return s.newJob(c, shapeChat, r.params, [][]int32{ids}, "messages")
	})
}

// chatPrompt renders a conversation.
func (s *Server) chatPrompt(p ChatPrompt) ([]int32, *apiError) {
	ids, err := s.engine.ChatPrompt(p)
	if err != nil {
		return nil, errorf(kindTemplate, "messages", "The model's chat template refuses the messages: %v.", err)
	}
	return ids, nil
}

// countInputTokens answers POST /v1/chat/completions/input_tokens: how long the
// prompt of such a request is. Fields that do not shape the prompt are ignored.
func (s *Server) countInputTokens(c *fiber.Ctx) error {
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
	prompt := decodeConversation(o, &s.opts.Limits)
	if o.err != nil {
		return o.err
	}
	info, e := s.resolve(model)
	if e != nil {
		return e
	}
	ids, e := s.chatPrompt(prompt)
	if e != nil {
		return e
	}
	b := append([]byte(nil), `{"object":"chat.completion.input_tokens","model":`...)
	b = appendString(b, info.ID)
	b = append(b, `,"input_tokens":`...)
	b = appendInt(b, len(ids))
	b = append(b, `,"max_model_len":`...)
	b = appendInt(b, info.Context)
	writeJSON(c.Context(), append(b, '}'))
	return nil
}
