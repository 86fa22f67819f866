package gateway

import (
	"net/url"

	"github.com/gofiber/fiber/v2"
)

// appendModel appends OpenAI's model object. max_model_len is vLLM's addition,
// plan ours.
func appendModel(b []byte, m *ModelInfo) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, m.ID)
	b = append(b, `,"object":"model","created":`...)
	b = appendInt(b, int(m.Created.Unix()))
	b = append(b, `,"owned_by":"moaserve","max_model_len":`...)
	b = appendInt(b, m.Context)
	b = append(b, `,"plan":`...)
	b = appendString(b, m.Plan)
	return append(b, '}')
}

// listModels answers GET /v1/models.
func (s *Server) listModels(c *fiber.Ctx) error {
	b := append([]byte(nil), `{"object":"list","data":[`...)
	for i, m := range s.engine.Models() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendModel(b, &m)
	}
	writeJSON(c.Context(), append(b, `]}`...))
	return nil
}

// getModel answers GET /v1/models/{id}. Ids may contain slashes.
func (s *Server) getModel(c *fiber.Ctx) error {
	// Fiber routes on the path as sent; clients escape the colon of NAME:PLAN.
	id, err := url.PathUnescape(c.Params("+"))
	if err != nil {
		return newError(kindModelNotFound)
	}
	info, e := s.resolve(id)
	if e != nil {
		return e
	}
	writeJSON(c.Context(), appendModel(nil, &info))
	return nil
}
