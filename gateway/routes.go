package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/valyala/fasthttp"
)

// route is a line of the routing table.
type route struct {
	method, path string
	// public routes need no API key. Everything else does: the check belongs to
	// the matched route, never to the text of the path.
	public  bool
	handler fiber.Handler
}

// routes is the routing table.
func (s *Server) routes() []route {
	return []route{
		{fiber.MethodPost, "/v1/chat/completions", false, s.chatCompletions},
		{fiber.MethodPost, "/v1/chat/completions/input_tokens", false, s.countInputTokens},
		{fiber.MethodPost, "/v1/completions", false, s.completions},
		{fiber.MethodGet, "/v1/models", false, s.listModels},
		{fiber.MethodGet, "/v1/models/+", false, s.getModel},
		{fiber.MethodPost, "/tokenize", false, s.tokenize},
		{fiber.MethodPost, "/detokenize", false, s.detokenize},
		{fiber.MethodGet, "/moaserve/kv", false, s.kv},
		{fiber.MethodGet, "/moaserve/sessions", false, s.listSessions},
		{fiber.MethodDelete, "/moaserve/sessions/+", false, s.endSession},
		{fiber.MethodGet, "/version", false, s.version},
		{fiber.MethodGet, "/health", true, s.health},
		{fiber.MethodGet, "/ready", true, s.ready},
		{fiber.MethodGet, "/metrics", s.opts.PublicMetrics, s.metricsHandler()},
	}
}

// Keys of a request's user values.
const (
	keyRoute  = "moaserve.route"
	keyTenant = "moaserve.tenant"
	keyError  = "moaserve.error"
)

const headerRequestID = "X-Request-Id"

// newApp builds the Fiber application.
func (s *Server) newApp() *fiber.App {
	app := fiber.New(fiber.Config{
		DisableStartupMessage:        true,
		CaseSensitive:                true, // /V1/Models is not /v1/models
		StrictRouting:                true,
		DisablePreParseMultipartForm: true, // uploads would be spooled to disk
		ReadBufferSize:               s.opts.Limits.HeaderBytes,
		BodyLimit:                    s.opts.Limits.BodyBytes,
		// The listener counts connections and refuses in JSON; this is above it.
		Concurrency: 2*s.opts.Limits.Connections + 16,
		ReadTimeout: s.opts.Timeouts.Header,
		IdleTimeout: s.opts.Timeouts.Idle,
		// WriteTimeout stays 0: it would be one deadline for a whole stream.
		ErrorHandler: func(c *fiber.Ctx, err error) error {
			s.handlerError(c.Context(), err)
			return nil
		},
	})
	for _, r := range s.routes() {
		h := s.guard(r)
		app.Add(r.method, r.path, h)
		if r.method == fiber.MethodGet {
			app.Add(fiber.MethodHead, r.path, h)
		}
	}
	// Whatever is not in the table needs a key as well, to learn that it is not.
	app.Use(func(c *fiber.Ctx) error {
		if _, ok := s.keys.tenant(&c.Request().Header); !ok {
			return newError(kindInvalidKey)
		}
		return c.Next()
	})
	server := app.Server()
	server.Handler = s.serveHTTP(app.Handler())
	server.ErrorHandler = s.protocolError
	server.HeaderReceived = s.headerReceived
	server.CloseOnShutdown = true
	return app
}

// guard checks the API key and notes the route.
func (s *Server) guard(r route) fiber.Handler {
	return func(c *fiber.Ctx) error {
		c.Context().SetUserValue(keyRoute, r.path)
		tenant, ok := s.keys.tenant(&c.Request().Header)
		if !ok && !r.public {
			return newError(kindInvalidKey)
		}
		c.Context().SetUserValue(keyTenant, tenant)
		return r.handler(c)
	}
}

// headerReceived sets what applies to a body before it is read. A client without
// a valid key has no body worth memory: it is left unread, and the connection
// ends after the response, which is 401 for all but public routes.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if _, ok := s.keys.tenant(h); !ok && h.ContentLength() != noBody {
		h.SetContentLength(0)
		h.Del(fasthttp.HeaderExpect)
		h.SetConnectionClose()
	}
	return fasthttp.RequestConfig{ReadTimeout: s.opts.Timeouts.Body}
}

// noBody is what fasthttp calls the length when neither header gives one.
const noBody = -2

// serveHTTP surrounds Fiber's handler with what holds for every request.
func (s *Server) serveHTTP(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		id := requestID(ctx.Request.Header.Peek(headerRequestID))
		ctx.Response.Header.Set(headerRequestID, id)
		defer func() {
			if r := recover(); r != nil {
				s.log.Error("panic in a handler", "request", id, "panic", r, "stack", string(debug.Stack()))
				ctx.Response.Reset()
				ctx.Response.Header.Set(headerRequestID, id)
				writeError(ctx, newError(kindInternal))
			}
			if c, ok := ctx.Conn().(*conn); ok {
				c.releaseBody()
				if ctx.Response.StatusCode() == fasthttp.StatusUnauthorized && ctx.Request.Header.ConnectionClose() {
					c.linger.Store(true) // its body was not read
				}
			}
			route, ok := ctx.UserValue(keyRoute).(string)
			if !ok {
				route = "other"
			}
			s.metrics.countHTTP(route, methodLabel(ctx), ctx.Response.StatusCode())
			s.logRequest(ctx, id, route, start)
		}()
		if s.Draining() {
			ctx.SetConnectionClose()
		}
		if e := s.checkRequest(ctx); e != nil {
			ctx.SetConnectionClose()
			writeError(ctx, e)
			return
		}
		if s.cors(ctx) {
			return
		}
		next(ctx)
	}
}

// logRequest writes the line about a request; that of a stream comes when its headers are
// decided, and its end has a line of its own. Probes and scrapes come every few seconds
// and tell nothing.
func (s *Server) logRequest(ctx *fasthttp.RequestCtx, id, route string, start time.Time) {
	level := slog.LevelInfo
	switch route {
	case "/health", "/ready", "/metrics":
		level = slog.LevelDebug
	}
	attrs := []any{
		"request", id, "client", ctx.RemoteIP().String(), "method", methodLabel(ctx), "route", route, "status", ctx.Response.StatusCode(),
		"took", time.Since(start).Round(time.Microsecond).String(),
	}
	if code, ok := ctx.UserValue(keyError).(string); ok {
		attrs = append(attrs, "error", code)
	}
	s.log.Log(context.Background(), level, "request", attrs...)
}

// checkRequest applies the rules that do not depend on the route.
func (s *Server) checkRequest(ctx *fasthttp.RequestCtx) *apiError {
	length, encoding := framing(ctx.Request.Header.RawHeaders())
	if length && encoding {
		// The classic of request smuggling: the two ends may disagree about where
		// the body ends. RFC 9112, section 6.3, lets a server refuse it.
		return errorf(kindMalformed, "", "The request has both Content-Length and Transfer-Encoding.")
	}
	if s.hosts != nil {
		host := string(ctx.Host())
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if _, ok := s.hosts[strings.Trim(host, "[]")]; !ok {
			return newError(kindHost)
		}
	}
	if !slices.Contains(fiber.DefaultMethods, string(ctx.Method())) {
		return newError(kindMethod)
	}
	return nil
}

// framing reports which of the two headers that delimit a body are there.
// fasthttp drops Content-Length when both are.
func framing(raw []byte) (length, encoding bool) {
	for line := range bytes.SplitSeq(raw, []byte("\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		length = length || bytes.EqualFold(name, []byte("Content-Length"))
		encoding = encoding || bytes.EqualFold(name, []byte("Transfer-Encoding"))
	}
	return length, encoding
}

// requestID keeps a client's id when it is harmless in logs and headers.
func requestID(given []byte) string {
	const maxID = 128
	ok := len(given) > 0 && len(given) <= maxID
	for _, c := range given {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			ok = false
		}
	}
	if ok {
		return string(given)
	}
	return uuid.NewString()
}

// methodLabel returns a method for a metric: a known one, since anything else
// would let clients make labels.
func methodLabel(ctx *fasthttp.RequestCtx) string {
	if m := string(ctx.Method()); slices.Contains(fiber.DefaultMethods, m) {
		return m
	}
	return "other"
}

// handlerError answers for a handler that returned err.
func (s *Server) handlerError(ctx *fasthttp.RequestCtx, err error) {
	e, internal := asAPIError(err)
	var routing *fiber.Error
	if errors.As(err, &routing) {
		internal = false
		switch routing.Code {
		case fiber.StatusNotFound:
			e = newError(kindNotFound)
		case fiber.StatusMethodNotAllowed:
			e = newError(kindMethod)
		default:
			e, internal = newError(kindInternal), true
		}
	}
	if internal {
		s.log.Error("request failed", "request", string(ctx.Response.Header.Peek(headerRequestID)), "error", err)
	}
	ctx.SetUserValue(keyError, e.code)
	s.metrics.reject(e)
	writeError(ctx, e)
}

// protocolError answers for a request that fasthttp could not read. err quotes
// the request's bytes, headers with keys among them: it goes nowhere.
func (s *Server) protocolError(ctx *fasthttp.RequestCtx, err error) {
	var (
		small   *fasthttp.ErrSmallBuffer
		timeout net.Error
		e       *apiError
	)
	switch {
	case errors.As(err, &small):
		e = newError(kindHeaderTooLarge)
	case errors.Is(err, errBodyMemory):
		e = newError(kindOverloaded)
		e.retryAfter = retryDefault
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		e = errorf(kindTooLarge, "", "The body is larger than %d bytes.", s.opts.Limits.BodyBytes)
	case errors.As(err, &timeout) && timeout.Timeout():
		e = newError(kindTimeout)
	default:
		e = newError(kindMalformed)
	}
	if c, ok := ctx.Conn().(*conn); ok {
		c.linger.Store(true)
		c.releaseBody()
	}
	ctx.Response.Reset()
	ctx.Response.Header.Set(headerRequestID, uuid.NewString())
	ctx.SetUserValue(keyError, e.code)
	s.metrics.reject(e)
	s.metrics.countHTTP("other", "other", e.status)
	writeError(ctx, e)
}
