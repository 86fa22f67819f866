package measure

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// wordServer is an OpenAI-compatible server that counts two tokens a word and streams
// what it is given.
func wordServer(t *testing.T, stream string) (url string, asked func() completion) {
	t.Helper()
	var last completion
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"words"},{"id":"others"}]}`)
	})
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer secret" {
			t.Errorf("the key is sent as %q", got)
		}
		last = completion{}
		if err := json.NewDecoder(r.Body).Decode(&last); err != nil {
			t.Error(err)
		}
		if last.Stream {
			_, _ = io.WriteString(w, stream)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"choices": []any{map[string]any{"text": "x"}}, "usage": map[string]int{"prompt_tokens": 2 * words(last), "completion_tokens": 1},
		})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, func() completion { return last }
}

func words(c completion) int {
	text, _ := c.Prompt.(string)
	return len(strings.Fields(text))
}

func TestServersAreAskedForTokensAsTheyCountThem(t *testing.T) {
	url, asked := wordServer(t, ": a comment\n\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"\"}]}\n\n"+
		"data:{\"choices\":[{\"text\":\"b\"}]}\n\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\n")
	s, err := newServerTarget(t.Context(), url+"/v1/", "secret")
	if err != nil {
		t.Fatal(err)
	}
	arrivals := 0
	if err := s.complete(t.Context(), 300, 40, 1, func(time.Time) { arrivals++ }); err != nil {
		t.Fatal(err)
	}
	if arrivals != 2 {
		t.Errorf("%d chunks with text, want 2", arrivals)
	}
	r := asked()
	if words(r) != 150 || r.Model != "words" || r.MaxTokens != 40 || !r.Stream || !r.IgnoreEOS {
		t.Errorf("asked for %+v, %d words", r, words(r))
	}
	if s.prompt(300, 1) != r.Prompt || s.prompt(300, 2) == r.Prompt {
		t.Error("a prompt is not what its seed says")
	}
}

func TestErrorsOfAServerEndTheMeasurement(t *testing.T) {
	url, _ := wordServer(t, "data: {\"error\":{\"message\":\"out of pages\"}}\n\n")
	s, err := newServerTarget(t.Context(), url, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.complete(t.Context(), 10, 10, 1, func(time.Time) {}); err == nil || !strings.Contains(err.Error(), "out of pages") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.complete(ctx, 10, 10, 1, func(time.Time) {}); err != nil {
		t.Errorf("cancelled: %v", err)
	}
}
