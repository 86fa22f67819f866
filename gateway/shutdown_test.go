package gateway

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestShutdownLetsRunningStreamsFinish(t *testing.T) {
	f := newFake()
	f.first = make(chan struct{})
	ts := newServer(t, f, Options{})
	c := ts.dial(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`)
	readUntil(t, c, `"role":"assistant"`)

	done := make(chan error, 1)
	go func() { done <- ts.Shutdown(context.Background()) }()
	eventually(t, "the server drains", ts.Draining)
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/chat/completions", `{` + hello + `}`, 503},
		{"POST", "/v1/completions", `{"prompt":"x"}`, 503},
		{"GET", "/ready", "", 503},
		{"GET", "/health", "", 200},
		{"GET", "/metrics", "", 200},
	} {
		r := ts.do(t, tc.method, tc.path, tc.body)
		if r.status != tc.status {
			t.Errorf("%s while draining: %d, want %d", tc.path, r.status, tc.status)
		}
		if r.status == 503 {
			if e := parseError(t, r.body); e.Code != "shutting_down" {
				t.Errorf("%s: %s", tc.path, e.Code)
			}
			retryAfter(t, r)
		}
	}
	close(f.first)
	readUntil(t, c, "[DONE]")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsWhatOutlastsTheDeadline(t *testing.T) {
	f := newFake()
	f.first = make(chan struct{})
	ts := newServer(t, f, Options{})
	stream := ts.dial(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`)
	readUntil(t, stream, `"role":"assistant"`)
	plain := ts.dial(t, "/v1/chat/completions", `{`+hello+`}`)
	eventually(t, "both run", func() bool { return f.running.Load() == 2 })

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- ts.Shutdown(ctx) }()
	got := readUntil(t, stream, "}}\n\n")
	if !strings.Contains(string(got), `data: {"error":{"message":"The server is shutting down."`) {
		t.Errorf("the stream ended with %q", got)
	}
	if got := readUntil(t, plain, "}}"); !strings.HasPrefix(string(got), "HTTP/1.1 503 ") {
		t.Errorf("the other got %q", got)
	}
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	for range 2 {
		if end := <-f.ended; !errors.Is(end.cause, errShutdown) {
			t.Errorf("cancelled because %v", end.cause)
		}
	}
}

func TestShutdownWithoutServeReleasesEverything(t *testing.T) {
	s, err := New(newFake(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
