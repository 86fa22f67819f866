package gateway

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"github.com/moaserve/moaserve/runtime"
)

// headerIgnored names the fields of a request that the server does not know.
const headerIgnored = "Moaserve-Ignored-Fields"

// takeBody takes the request's body out of its pool, so that it can be freed
// while the answer is generated. Compressed bodies are refused: fasthttp would
// inflate them without any bound.
func takeBody(c *fiber.Ctx) ([]byte, *apiError) {
	h := &c.Request().Header
	if enc := h.ContentEncoding(); len(enc) > 0 && !bytes.EqualFold(enc, []byte("identity")) {
		return nil, newError(kindEncoding)
	}
	if length, chunked := framing(h.RawHeaders()); !length && !chunked {
		return nil, newError(kindLength)
	}
	// A form's content type would let any web page post without asking first.
	media, _, _ := strings.Cut(string(h.ContentType()), ";")
	if !strings.EqualFold(strings.TrimSpace(media), contentJSON) {
		return nil, newError(kindMediaType)
	}
	return c.Request().SwapBody(nil), nil
}

// admit refuses while draining, and asks for a place in the queue.
func (s *Server) admit(c *fiber.Ctx, bodyBytes int) (*ticket, *apiError) {
	if s.Draining() {
		return nil, shutdownError()
	}
	return s.queue.enter(tenantOf(c), len(s.keys) > 0, 1, bodyBytes)
}

// visit takes the body of a request that is answered without the engine's queue,
// and a place among its tenant's requests in flight. The body counts in
// Limits.BodyMemory until the handler returns: what is decoded of it is as large,
// and a long conversation takes a while to render.
func (s *Server) visit(c *fiber.Ctx) ([]byte, *ticket, *apiError) {
	body, e := takeBody(c)
	if e != nil {
		return nil, nil, e
	}
	t, e := s.queue.enter(tenantOf(c), len(s.keys) > 0, 0, 0)
	return body, t, e
}

// releaseBody says that nothing refers to the request's body any more.
func releaseBody(c *fiber.Ctx) {
	if conn, ok := c.Context().Conn().(*conn); ok {
		conn.releaseBody()
	}
}

// resolve finds the model a request names; without a name, the default.
func (s *Server) resolve(name string) (ModelInfo, *apiError) {
	models := s.engine.Models()
	if name == "" {
		return models[0], nil
	}
	for _, m := range models {
		if m.ID == name {
			return m, nil
		}
	}
	e := newError(kindModelNotFound)
	e.param = "model"
	return ModelInfo{}, e
}

// generate answers a request for completions, of either family. prepare makes
// the job of the body and keeps no reference to it.
func (s *Server) generate(c *fiber.Ctx, prepare func(body []byte) (*job, *apiError)) error {
	body, e := takeBody(c)
	if e != nil {
		return e
	}
	t, e := s.admit(c, len(body))
	if e != nil {
		return e
	}
	streaming := false // then the stream gives everything back
	defer func() {
		if !streaming {
			t.leave()
		}
	}()
	j, e := prepare(body)
	releaseBody(c)
	if e != nil {
		return e
	}
	// The prompts differ in length: the mean stands for each.
	tokens := 0
	for i := range j.requests {
		tokens += len(j.requests[i].Prompt)
	}
	if e := t.resize(len(j.requests), tokens/len(j.requests)); e != nil {
		return e
	}
	if ignored := ignoredHeader(j.params.ignored); ignored != "" {
		c.Response().Header.Set(headerIgnored, ignored)
	}

	g, e := s.open(c.Context(), t)
	if e != nil {
		return e
	}
	defer func() {
		if !streaming {
			g.finish()
		}
	}()
	if err := g.submit(j); err != nil {
		return err
	}
	if j.params.stream {
		if e := g.stream(c.Context(), j); e != nil {
			return e
		}
		streaming = true
		return nil
	}
	response, e := g.collect(j)
	if e != nil {
		return e
	}
	writeJSON(c.Context(), response)
	return nil
}

// completions answers POST /v1/completions.
func (s *Server) completions(c *fiber.Ctx) error {
	return s.generate(c, func(body []byte) (*job, *apiError) {
		r, e := decodeCompletion(body, &s.opts.Limits, s.engine.Vocab())
		if e != nil {
			return nil, e
		}
		prompts := make([][]int32, len(r.prompts))
		var echoes []string
		for i, p := range r.prompts {
			prompts[i] = p.ids
			if p.ids == nil {
				prompts[i] = s.engine.Tokenize(p.text, r.addSpecial, true)
			}
			if !r.echo {
				continue
			}
			if p.ids != nil {
				p.text = s.engine.Detokenize(p.ids)
			}
			echoes = append(echoes, p.text)
		}
		j, e := s.newJob(c, shapeCompletion, r.params, prompts, "prompt")
		if e != nil {
			return nil, e
		}
		j.echoes = echoes
		return j, nil
	})
}

// newJob checks the prompts against the context and the limits and makes the
// engine's requests. param is the field that holds the prompt.
func (s *Server) newJob(c *fiber.Ctx, sh *shape, p params, prompts [][]int32, param string) (*job, *apiError) {
	info, e := s.resolve(p.model)
	if e != nil {
		return nil, e
	}
	// Bound the product before anything of its size exists.
	choices := p.n * len(prompts)
	if choices > s.opts.Limits.Choices {
		return nil, errorf(kindTooMany, "n", "'n' times the number of prompts is %d; at most %d choices are generated.", choices, s.opts.Limits.Choices)
	}
	maxTokens := p.maxTokens
	budget := s.opts.Limits.RequestTokens
	total, promptTokens := 0, 0
	for _, ids := range prompts {
		if len(ids) == 0 {
			return nil, errorf(kindInvalidValue, param, "'%s' must not be empty.", param)
		}
		if len(ids) >= info.Context || maxTokens > info.Context-len(ids) {
			e := contextError(len(ids), p.maxTokens, info.Context)
			e.param = param
			return nil, e
		}
		total += p.n * (len(ids) + maxTokens)
		promptTokens += p.n * len(ids)
	}
	if total > budget {
		return nil, errorf(kindInvalidValue, "n", "The request asks for up to %d tokens in %d choices; at most %d are accepted in one request.", total, choices, budget)
	}
	// One choice may always wait; more of them, which the engine queues one by one, would be
	// refused however often they are sent.
	if l := &s.opts.Limits; choices > 1 && (choices > l.QueuedRequests || promptTokens > l.QueuedTokens) {
		return nil, errorf(kindInvalidValue, "n", "The request has %d choices with %d prompt tokens; at most %d with %d can wait for admission. Ask for fewer, or shorten the prompt.",
			choices, promptTokens, l.QueuedRequests, l.QueuedTokens)
	}
	if maxTokens == 0 && choices > 1 {
		// Without max_tokens each choice may use what the budget leaves it.
		longest := 0
		for _, ids := range prompts {
			longest = max(longest, len(ids))
		}
		maxTokens = max(1, min(info.Context-longest, (budget-total)/choices))
	}

	tenant := tenantOf(c)
	seed := p.seed
	if !p.seeded {
		seed = rand.Uint64()
	}
	session, e := sessionName(c, p.session)
	if e != nil {
		return nil, e
	}
	j := &job{
		envelope: envelope{
			shape:   sh,
			id:      sh.idPrefix + strings.ReplaceAll(uuid.NewString(), "-", ""),
			created: time.Now().Unix(),
			model:   info.ID,
		},
		params:           p,
		info:             info,
		requests:         make([]runtime.Request, 0, choices),
		progressComments: string(c.Request().Header.Peek("X-Progress")) == "comment",
	}
	requestID := string(c.Response().Header.Peek(headerRequestID))
	for _, ids := range prompts {
		for i := range p.n {
			sampling := p.sampling
			// Choices differ in their random streams; the first uses the seed as
			// given, so that n does not change it. The odd constant spreads the
			// others over the 64 bits.
			sampling.Seed = seed + uint64(i)*0x9e3779b97f4a7c15
			j.requests = append(j.requests, runtime.Request{
				ID:           requestID,
				Prompt:       ids,
				Plan:         info.Plan,
				MaxTokens:    maxTokens,
				Stop:         p.stop,
				IncludeStop:  p.includeStop,
				IgnoreEOS:    p.ignoreEOS,
				StopTokenIDs: p.stopTokens,
				Sampling:     sampling,
				Tenant:       tenant,
				Session:      session,
				Progress:     p.progress,
			})
		}
	}
	return j, nil
}

// writeJSON makes body the response.
func writeJSON(ctx *fasthttp.RequestCtx, body []byte) {
	ctx.Response.Header.SetContentType(contentJSON)
	ctx.Response.SetBodyRaw(body)
}
