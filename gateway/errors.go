package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/moaserve/moaserve/runtime"
)

// Causes of a request's cancelled context.
var (
	errClientGone = errors.New("the client closed the connection")
	errShutdown   = errors.New("the server is shutting down")
	errDone       = errors.New("the response is complete")
)

// The types of OpenAI's error object.
const (
	typeInvalid    = "invalid_request_error"
	typeAuth       = "authentication_error"
	typePermission = "permission_error"
	typeRateLimit  = "rate_limit_error"
	typeServer     = "server_error"
)

// errorKind is a line of the catalogue: everything about an error but its words
// in the case at hand.
type errorKind struct {
	code    string // OpenAI's code: a string, never a number
	status  int
	typ     string
	message string // what is said when nothing more is known
}

// The catalogue: every error a client can see. docs/api.md lists it too.
var (
	kindInvalidJSON     = errorKind{"invalid_json", 400, typeInvalid, "The body is not a valid JSON object."}
	kindInvalidType     = errorKind{"invalid_type", 400, typeInvalid, "A field has the wrong type."}
	kindInvalidValue    = errorKind{"invalid_value", 400, typeInvalid, "A field has an invalid value."}
	kindMissing         = errorKind{"missing_required_parameter", 400, typeInvalid, "A required field is missing."}
	kindUnsupported     = errorKind{"unsupported_parameter", 400, typeInvalid, "A field asks for what this server cannot do."}
	kindTooMany         = errorKind{"array_above_max_length", 400, typeInvalid, "A list is too long."}
	kindTooLong         = errorKind{"string_above_max_length", 400, typeInvalid, "A string is too long."}
	kindContextLength   = errorKind{"context_length_exceeded", 400, typeInvalid, "The request does not fit the context."}
	kindTemplate        = errorKind{"invalid_conversation", 400, typeInvalid, "The model's chat template refuses these messages."}
	kindMalformed       = errorKind{"malformed_request", 400, typeInvalid, "The request is not valid HTTP."}
	kindInvalidKey      = errorKind{"invalid_api_key", 401, typeAuth, "Missing or wrong API key. Send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'."}
	kindHost            = errorKind{"host_not_allowed", 403, typePermission, "The Host header names a host this server does not answer for."}
	kindModelNotFound   = errorKind{"model_not_found", 404, typeInvalid, "The model does not exist. GET /v1/models lists those that do."}
	kindSessionNotFound = errorKind{"session_not_found", 404, typeInvalid, "There is no such session. GET /moaserve/sessions lists those that are remembered."}
	kindNotFound        = errorKind{"unknown_url", 404, typeInvalid, "There is no such endpoint."}
	kindMethod          = errorKind{"method_not_allowed", 405, typeInvalid, "The endpoint does not answer this method."}
	kindTimeout         = errorKind{"request_timeout", 408, typeInvalid, "The request did not arrive in time."}
	kindLength          = errorKind{"length_required", 411, typeInvalid, "The request needs a body with a Content-Length or chunked encoding."}
	kindTooLarge        = errorKind{"request_too_large", 413, typeInvalid, "The body is too large."}
	kindMediaType       = errorKind{"unsupported_media_type", 415, typeInvalid, "The body must be sent as Content-Type: application/json."}
	kindEncoding        = errorKind{"unsupported_content_encoding", 415, typeInvalid, "Compressed bodies are not accepted. Send the body without Content-Encoding."}
	kindRateLimit       = errorKind{"rate_limit_exceeded", 429, typeRateLimit, "This API key has too many requests in flight."}
	kindHeaderTooLarge  = errorKind{"request_header_too_large", 431, typeInvalid, "The request line and headers are too large."}
	kindClientClosed    = errorKind{"client_closed_request", 499, typeInvalid, "The client closed the connection before the answer was complete."}
	kindInternal        = errorKind{"internal_error", 500, typeServer, "The server made an error. It has been logged under the request id."}
	kindEngine          = errorKind{"engine_error", 500, typeServer, "The engine failed while it served the request. The failure has been logged under the request id."}
	kindQueueFull       = errorKind{"queue_full", 503, typeServer, "Too many requests are waiting. Try again later."}
	kindOverloaded      = errorKind{"overloaded", 503, typeServer, "The server holds as much as it can. Try again later."}
	kindShutdown        = errorKind{"shutting_down", 503, typeServer, "The server is shutting down."}
	kindUnhealthy       = errorKind{"unhealthy", 503, typeServer, "The engine is not able to serve."}
)

// errorKinds lists every kind: tests hold docs/api.md against it.
var errorKinds = []errorKind{
	kindInvalidJSON, kindInvalidType, kindInvalidValue, kindMissing, kindUnsupported, kindTooMany, kindTooLong,
	kindContextLength, kindTemplate, kindMalformed, kindInvalidKey, kindHost, kindModelNotFound, kindSessionNotFound, kindNotFound,
	kindMethod, kindTimeout, kindLength, kindTooLarge, kindMediaType, kindEncoding, kindRateLimit,
	kindHeaderTooLarge, kindClientClosed, kindInternal, kindEngine, kindQueueFull, kindOverloaded, kindShutdown,
	kindUnhealthy,
}

// apiError is an error as the client sees it. Its words never contain raw bytes
// of the request other than field names and numbers.
type apiError struct {
	errorKind
	param      string        // the field at fault, empty when none is
	retryAfter time.Duration // 0 when it makes no sense to say
	// promptTokens and context are set for kindContextLength.
	promptTokens, context int
}

// Error returns the message.
func (e *apiError) Error() string { return e.message }

// newError returns an error of a kind in the kind's own words.
func newError(k errorKind) *apiError { return &apiError{errorKind: k} }

// errorf returns an error of a kind about a field.
func errorf(k errorKind, param, format string, args ...any) *apiError {
	k.message = fmt.Sprintf(format, args...)
	return &apiError{errorKind: k, param: param}
}

// contextError says that a request does not fit. Which field is at fault the caller knows.
func contextError(prompt, maxTokens, context int) *apiError {
	e := newError(kindContextLength)
	e.promptTokens, e.context = prompt, context
	e.message = fmt.Sprintf("The context holds %d tokens. The prompt has %d", context, prompt)
	if maxTokens > 0 {
		e.message += fmt.Sprintf(" and %d more were asked for", maxTokens)
	}
	e.message += ". Shorten one or the other."
	return e
}

// retryDefault is what Retry-After says when nothing better is known.
const retryDefault = time.Second

// retryMax bounds Retry-After: the official clients ignore more than two minutes.
const retryMax = 120 * time.Second

// asAPIError translates what came from an engine or from the gateway itself.
// internal is true when the client is told less than err says, so that err must
// be logged.
func asAPIError(err error) (e *apiError, internal bool) {
	if errors.As(err, &e) {
		return e, false
	}
	var tooLong *runtime.ContextLengthError
	switch {
	case errors.As(err, &tooLong):
		return contextError(tooLong.PromptTokens, tooLong.MaxTokens, tooLong.Context), false
	case errors.Is(err, runtime.ErrQueueFull):
		e = newError(kindQueueFull)
	case errors.Is(err, runtime.ErrClosed), errors.Is(err, errShutdown):
		e = newError(kindShutdown)
	case errors.Is(err, runtime.ErrUnknownPlan):
		e = newError(kindModelNotFound)
		e.param = "model"
		return e, false
	case errors.Is(err, errClientGone), errors.Is(err, context.Canceled):
		return newError(kindClientClosed), false
	default:
		return newError(kindEngine), true
	}
	e.retryAfter = retryDefault
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) {
		e.retryAfter = later.RetryAfter()
	}
	return e, false
}

// appendJSON appends the error as OpenAI's ErrorResponse object.
func (e *apiError) appendJSON(b []byte) []byte {
	b = append(b, `{"error":{"message":`...)
	b = appendString(b, e.message)
	b = append(b, `,"type":`...)
	b = appendString(b, e.typ)
	b = append(b, `,"param":`...)
	if e.param == "" {
		b = append(b, "null"...)
	} else {
		b = appendString(b, e.param)
	}
	b = append(b, `,"code":`...)
	b = appendString(b, e.code)
	if e.code == kindContextLength.code {
		b = append(b, `,"n_prompt_tokens":`...)
		b = strconv.AppendInt(b, int64(e.promptTokens), 10)
		b = append(b, `,"n_ctx":`...)
		b = strconv.AppendInt(b, int64(e.context), 10)
	}
	return append(b, "}}"...)
}

// writeError makes e the response of ctx.
func writeError(ctx *fasthttp.RequestCtx, e *apiError) {
	// What a handler had set for its success must not decorate the error.
	ctx.Response.ResetBody()
	ctx.Response.Header.Del(fasthttp.HeaderCacheControl)
	ctx.Response.SetStatusCode(e.status)
	ctx.Response.Header.SetContentType(contentJSON)
	if e.status == fasthttp.StatusUnauthorized {
		ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, "Bearer")
	}
	if e.retryAfter > 0 {
		seconds := int(math.Ceil(min(e.retryAfter, retryMax).Seconds()))
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(seconds))
	}
	ctx.Response.SetBodyRaw(e.appendJSON(nil))
}

const contentJSON = "application/json"
