package gateway

import (
	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health answers GET /health: whether the process should go on living. A
// draining server is healthy.
func (s *Server) health(c *fiber.Ctx) error {
	if e := s.unhealthy(); e != nil {
		return e
	}
	writeJSON(c.Context(), []byte(`{"status":"ok"}`))
	return nil
}

// ready answers GET /ready: whether new requests should be sent here.
func (s *Server) ready(c *fiber.Ctx) error {
	if s.Draining() {
		return shutdownError()
	}
	if e := s.unhealthy(); e != nil {
		return e
	}
	writeJSON(c.Context(), []byte(`{"status":"ready"}`))
	return nil
}

// unhealthy returns an error while the engine cannot serve. The reason is for
// the log: the endpoint is open to everybody.
func (s *Server) unhealthy() *apiError {
	err := s.engine.Healthy()
	if err == nil {
		return nil
	}
	s.log.Warn("the engine is not healthy", "error", err)
	e := newError(kindUnhealthy)
	e.retryAfter = retryDefault
	return e
}

// version answers GET /version.
func (s *Server) version(c *fiber.Ctx) error {
	b := append([]byte(nil), `{"version":`...)
	b = appendString(b, s.opts.Version)
	writeJSON(c.Context(), append(b, '}'))
	return nil
}

// metricsHandler answers GET /metrics.
func (s *Server) metricsHandler() fiber.Handler {
	return adaptor.HTTPHandler(promhttp.HandlerFor(aliasGatherer{s.metrics.registry}, promhttp.HandlerOpts{}))
}
