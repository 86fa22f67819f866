package gateway

import (
	"slices"

	"github.com/valyala/fasthttp"
)

// cors adds the headers that let web pages of the allowed origins read the
// response, and reports whether it answered the request itself (a preflight).
// Cookies are never involved, so credentials are not allowed.
func (s *Server) cors(ctx *fasthttp.RequestCtx) bool {
	origin := string(ctx.Request.Header.Peek(fasthttp.HeaderOrigin))
	if len(s.opts.CORSOrigins) == 0 || origin == "" {
		return false
	}
	h := &ctx.Response.Header
	h.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	switch {
	case slices.Contains(s.opts.CORSOrigins, "*"):
		h.Set(fasthttp.HeaderAccessControlAllowOrigin, "*")
	case slices.Contains(s.opts.CORSOrigins, origin):
		h.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	default:
		return false
	}
	h.Set(fasthttp.HeaderAccessControlExposeHeaders, headerRequestID+", "+headerIgnored+", Retry-After")
	if !ctx.IsOptions() || len(ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 {
		return false
	}
	h.Set(fasthttp.HeaderAccessControlAllowMethods, "GET, POST, DELETE")
	h.Set(fasthttp.HeaderAccessControlAllowHeaders, "Authorization, Content-Type, X-Api-Key, X-Progress, "+headerRequestID+", "+headerSession)
	h.Set(fasthttp.HeaderAccessControlMaxAge, "600")
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return true
}
