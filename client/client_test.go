package client

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"
)

// serve answers every request with that status and body and records the last
// request's body.
func serve(t *testing.T, status int, body string) (*Client, *string) {
	t.Helper()
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = strings.Join([]string{r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("X-Session-ID"), string(b)}, " ")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return New(s.URL+"/v1/", "key"), &got
}

func collect(t *testing.T, c *Client, r Request) (text string, progress []Progress, err error) {
	t.Helper()
	s, err := c.Stream(t.Context(), r)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = s.Close() }()
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return text, progress, nil
		}
		if err != nil {
			return text, progress, err
		}
		if chunk.Progress != nil {
			progress = append(progress, *chunk.Progress)
		}
		text += chunk.Text()
	}
}

func TestStreamCarriesExtensions(t *testing.T) {
	c, got := serve(t, 200, `: ping

data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"prompt_progress":{"total":110,"cache":10,"processed":60,"time_ms":5}}

data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}

data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}

data: {"choices":[],"usage":{"prompt_tokens":110,"completion_tokens":2,"total_tokens":112}}

data: [DONE]
`)
	text, progress, err := collect(t, c, Request{
		ChatCompletionRequest: openai.ChatCompletionRequest{Model: "m"}, Plan: "moa-25", Session: "s 1", Progress: true,
	})
	if err != nil || text != "Hello" {
		t.Errorf("got %q, %v", text, err)
	}
	if len(progress) != 1 || progress[0].Share() != 0.5 {
		t.Errorf("progress %+v, want a share of 0.5", progress)
	}
	for _, want := range []string{"POST /v1/chat/completions Bearer key s 1 ", `"model":"m:moa-25"`, `"return_progress":true`, `"stream":true`} {
		if !strings.Contains(*got, want) {
			t.Errorf("the request %s lacks %s", *got, want)
		}
	}
}

func TestErrorsKeepTheirDetail(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		code   string
	}{
		{"before the stream", 400, `{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, "context_length_exceeded"},
		{"in mid-stream after a ping", 200, ": ping\n\ndata: {\"choices\":[]}\n\ndata: {\"error\":{\"message\":\"the device failed\",\"type\":\"server_error\",\"param\":null,\"code\":\"engine_error\"}}\n\n", "engine_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, _ := serve(t, c.status, c.body)
			_, _, err := collect(t, cl, Request{})
			var api *openai.APIError
			if !errors.As(err, &api) || api.Code != c.code {
				t.Errorf("got %#v, want an APIError with code %s", err, c.code)
			}
		})
	}
}

func TestBrokenStreamIsNotTheEnd(t *testing.T) {
	c, _ := serve(t, 200, "data: {\"choices\":[]}\n\n")
	if _, _, err := collect(t, c, Request{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestForeignErrorPage(t *testing.T) {
	c, _ := serve(t, 502, "<html>bad gateway</html>")
	_, _, err := collect(t, c, Request{})
	var re *openai.RequestError
	if !errors.As(err, &re) || re.HTTPStatusCode != 502 {
		t.Errorf("got %v, want a RequestError of status 502", err)
	}
}

func TestSessionIsEndedByName(t *testing.T) {
	c, got := serve(t, 200, `{"id":"a/b ü","object":"session","deleted":true}`)
	if err := c.EndSession(t.Context(), "a/b ü"); err != nil {
		t.Error(err)
	}
	if want := "DELETE /moaserve/sessions/a%2Fb%20%C3%BC Bearer key  "; *got != want {
		t.Errorf("the request is %q, want %q", *got, want)
	}
	c, _ = serve(t, 404, `{"error":{"message":"There is no such session.","type":"invalid_request_error","param":null,"code":"session_not_found"}}`)
	var e *openai.APIError
	if err := c.EndSession(t.Context(), "x"); !errors.As(err, &e) || e.Code != "session_not_found" {
		t.Errorf("got %v, want session_not_found", err)
	}
}
