// Package client talks to a moaserve server from Go. It is go-openai with what
// the OpenAI API lacks: the choice of a plan, sessions, progress while a long
// document is read, and errors in mid-stream that keep their detail.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	openai "github.com/sashabaranov/go-openai"
)

// Client is a go-openai client (every method of it works against moaserve) with
// [Client.Stream] added. It is safe for concurrent use.
type Client struct {
	*openai.Client
	base   string
	apiKey string
	http   *http.Client
}

// New returns a client of the server at base, for example
// "http://127.0.0.1:8080". apiKey may be empty. There is no overall time limit: a
// long document takes as long as it takes; use the context.
func New(base, apiKey string) *Client {
	base = strings.TrimSuffix(strings.TrimRight(base, "/"), "/v1") + "/v1"
	h := &http.Client{}
	c := openai.DefaultConfig(apiKey)
	c.BaseURL = base
	c.HTTPClient = h
	// The server sends a comment line for every 15 seconds of silence; go-openai
	// counts those against this limit.
	c.EmptyMessagesLimit = 100_000
	return &Client{Client: openai.NewClientWithConfig(c), base: base, apiKey: apiKey, http: h}
}

// Request is a chat completion request with moaserve's extensions.
type Request struct {
	openai.ChatCompletionRequest
	// Plan names the plan to run under; empty leaves it to the model name.
	Plan string
	// Session names the conversation, so that the server gives up last what it has
	// read for it.
	Session string
	// Progress asks for chunks that tell how much of the prompt has been read.
	Progress bool
}

// MarshalJSON adds the extensions to the request's own fields.
func (r Request) MarshalJSON() ([]byte, error) {
	if r.Plan != "" {
		name, _, _ := strings.Cut(r.Model, ":")
		r.Model = name + ":" + r.Plan
	}
	return json.Marshal(struct {
		openai.ChatCompletionRequest
		Progress bool `json:"return_progress,omitempty"`
	}{r.ChatCompletionRequest, r.Progress})
}

// Progress tells how much of a prompt has been read. Share gives it in 0..1.
type Progress struct {
	Total     int   `json:"total"`     // tokens of the prompt
	Cached    int   `json:"cache"`     // of which were in the prefix cache
	Processed int   `json:"processed"` // of which have been read, cached ones included
	Millis    int64 `json:"time_ms"`   // since the prefill began
}

// Share returns the share of the new tokens that have been read.
func (p Progress) Share() float64 {
	if p.Total <= p.Cached {
		return 1
	}
	return float64(p.Processed-p.Cached) / float64(p.Total-p.Cached)
}

// Chunk is one event of a stream.
type Chunk struct {
	openai.ChatCompletionStreamResponse
	Progress *Progress `json:"prompt_progress,omitempty"`
}

// Text returns the text that the chunk adds to the first choice.
func (c Chunk) Text() string {
	if len(c.Choices) == 0 {
		return ""
	}
	return c.Choices[0].Delta.Content
}

// Stream starts a streamed chat completion. Errors of the server are
// *openai.APIError. Close the Stream; cancelling ctx ends it, and the server
// notices at once.
func (c *Client) Stream(ctx context.Context, r Request) (*Stream, error) {
	r.ChatCompletionRequest.Stream = true
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	if r.Session != "" {
		req.Header.Set("X-Session-ID", r.Session)
	}
	c.authorize(req)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }()
		return nil, apiError(resp)
	}
	return newStream(resp.Body), nil
}

// EndSession tells the server to forget a session. One that it does not know is an
// *openai.APIError with the code "session_not_found".
func (c *Client) EndSession(ctx context.Context, session string) error {
	target := strings.TrimSuffix(c.base, "/v1") + "/moaserve/sessions/" + url.PathEscape(session)
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, target, nil)
	if err != nil {
		return err
	}
	c.authorize(req)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return apiError(resp)
	}
	return nil
}

func (c *Client) authorize(req *http.Request) {
	if c.apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.apiKey)
	}
}

// maxErrorBody bounds how much of an error response is read.
const maxErrorBody = 1 << 20

func apiError(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return fmt.Errorf("reading the error of status %s: %w", resp.Status, err)
	}
	if e := decodeError(body); e != nil {
		e.HTTPStatus, e.HTTPStatusCode = resp.Status, resp.StatusCode
		return e
	}
	return &openai.RequestError{HTTPStatus: resp.Status, HTTPStatusCode: resp.StatusCode, Body: body,
		Err: fmt.Errorf("the body is no OpenAI error")}
}

// decodeError returns nil when b is not {"error": ...}.
func decodeError(b []byte) *openai.APIError {
	var e openai.ErrorResponse
	err := json.Unmarshal(b, &e)
	if err == nil {
		return e.Error
	}
	return nil
}
