package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// lockedBuffer may be written to while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// line waits for the first line with that message and removes those before it.
func (l *lockedBuffer) line(t *testing.T, message string) map[string]any {
	t.Helper()
	for range 100 {
		l.mu.Lock()
		for lines := bufio.NewScanner(bytes.NewReader(l.b.Bytes())); lines.Scan(); {
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) == nil && line["msg"] == message {
				l.b.Reset()
				l.mu.Unlock()
				return line
			}
		}
		l.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("no line %q: %s", message, &l.b)
	return nil
}

func TestRequestsAndGenerationsHaveALineEach(t *testing.T) {
	var out lockedBuffer
	s := newServer(t, newFake(), Options{APIKeys: []APIKey{mustKey(t, "k", "team")}, Logger: slog.New(slog.NewJSONHandler(&out, nil))})
	want := func(line map[string]any, fields map[string]any) {
		t.Helper()
		for k, v := range fields {
			if line[k] != v {
				t.Errorf("%s is %v, want %v: %v", k, line[k], v, line)
			}
		}
	}
	for _, stream := range []string{"false", "true"} {
		body := `{"messages":[{"role":"user","content":"hi"}],"max_tokens":5,"stream":` + stream + `}`
		if r := s.post(t, "/v1/chat/completions", body, "X-Api-Key", "k", "X-Request-Id", "mine"); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		generation := out.line(t, "generation")
		want(generation, map[string]any{"level": "INFO", "request": "mine", "tenant": "team", "choices": 1., "ended": "stop"})
		for _, k := range []string{"prompt_tokens", "completion_tokens"} {
			if n, ok := generation[k].(float64); !ok || n < 1 {
				t.Errorf("%s is %v", k, generation[k])
			}
		}
	}
	if r := s.post(t, "/v1/chat/completions", `{`, "X-Api-Key", "k", "X-Request-Id", "wrong"); r.status != 400 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	time.Sleep(50 * time.Millisecond)
	out.line(t, "request") // of the streams, and then
	s.post(t, "/v1/chat/completions", `{`, "X-Api-Key", "k", "X-Request-Id", "wrong")
	want(out.line(t, "request"), map[string]any{"level": "INFO", "request": "wrong", "route": "/v1/chat/completions", "method": "POST", "status": 400., "error": "invalid_json", "client": "127.0.0.1"})
	s.do(t, "GET", "/health", "")
	time.Sleep(50 * time.Millisecond)
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.b.Len() > 0 {
		t.Errorf("a probe has a line: %s", &out.b)
	}
}
