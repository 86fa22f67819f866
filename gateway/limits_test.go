package gateway

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The limits on fields are in TestBadInputIsRefusedWithTheFieldAndTheReason,
// those on headers and slow clients in TestProtocolErrorsAreJSONAndQuoteNothing.

func TestNegativeLimitsAreRefused(t *testing.T) {
	for _, o := range []Options{
		{Limits: Limits{Messages: -1}},
		{Timeouts: Timeouts{Ping: -1}},
		{Limits: Limits{BodyBytes: 2 << 20, BodyMemory: 1 << 20}},
	} {
		if _, err := New(newFake(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func retryAfter(t *testing.T, r reply) int {
	t.Helper()
	seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
	if err != nil || seconds < 1 || seconds > 120 {
		t.Errorf("Retry-After %q, want whole seconds between 1 and 120", r.header.Get("Retry-After"))
	}
	return seconds
}

func TestTheQueueIsBoundedInRequestsAndInTokens(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits Limits
		body   string
	}{
		{"requests", Limits{QueuedRequests: 2}, `{"prompt":"x"}`},
		{"choices", Limits{QueuedRequests: 3}, `{"prompt":"x","n":2}`},
		{"tokens", Limits{QueuedTokens: 2500}, `{"prompt":"` + strings.Repeat("x", 1000) + `"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			f.admit = make(chan struct{})
			ts := newServer(t, f, Options{Limits: tc.limits})
			done := make(chan reply, 2)
			// Two fit, or one and its choices do.
			fits := 2
			if tc.name == "choices" {
				fits = 1
			}
			for range fits {
				go func() { done <- ts.post(t, "/v1/completions", tc.body) }()
			}
			eventually(t, "they wait", func() bool {
				ts.queue.mu.Lock()
				defer ts.queue.mu.Unlock()
				return int(f.running.Load()) == ts.queue.waiting && ts.queue.waiting >= fits
			})
			r := ts.post(t, "/v1/completions", tc.body)
			if e := parseError(t, r.body); r.status != 503 || e.Code != "queue_full" || e.Type != "server_error" {
				t.Errorf("%d %+v", r.status, e)
			}
			retryAfter(t, r)
			close(f.admit)
			for range fits {
				if r := <-done; r.status != 200 {
					t.Errorf("a request that fitted: %d %s", r.status, r.body)
				}
			}
			if r := ts.post(t, "/v1/completions", tc.body); r.status != 200 {
				t.Errorf("once the queue is empty: %d %s", r.status, r.body)
			}
			ts.queue.mu.Lock()
			defer ts.queue.mu.Unlock()
			if ts.queue.waiting != 0 || ts.queue.tokens != 0 || len(ts.queue.tenants) != 0 {
				t.Errorf("left over: %d sequences, %d tokens, tenants %v", ts.queue.waiting, ts.queue.tokens, ts.queue.tenants)
			}
		})
	}
}

func TestTenantsAreBoundedOnTheirOwn(t *testing.T) {
	f := newFake()
	f.first = make(chan struct{})
	ts := newServer(t, f, Options{
		APIKeys: []APIKey{mustKey(t, "k1", "a"), mustKey(t, "k2", "a"), mustKey(t, "k3", "b")},
		Limits:  Limits{TenantRequests: 1},
	})
	body := `{"prompt":"x","stream":true}`
	done := make(chan reply, 2)
	go func() { done <- ts.post(t, "/v1/completions", body, "X-Api-Key", "k1") }()
	eventually(t, "the first runs", func() bool { return f.running.Load() == 1 })
	r := ts.post(t, "/v1/completions", body, "X-Api-Key", "k2")
	if e := parseError(t, r.body); r.status != 429 || e.Code != "rate_limit_exceeded" || e.Type != "rate_limit_error" {
		t.Errorf("%d %+v", r.status, e)
	}
	retryAfter(t, r)
	go func() { done <- ts.post(t, "/v1/completions", body, "X-Api-Key", "k3") }()
	eventually(t, "another tenant runs", func() bool { return f.running.Load() == 2 })
	close(f.first)
	for range 2 {
		if r := <-done; r.status != 200 {
			t.Errorf("%d", r.status)
		}
	}
	// The end of a stream is noted just after its last byte.
	eventually(t, "the place is free again", func() bool {
		return ts.post(t, "/v1/completions", `{"prompt":"x"}`, "X-Api-Key", "k2").status == 200
	})
}

func TestRequestsWithoutTheEngineCountForTheirTenant(t *testing.T) {
	f := newFake()
	f.render = make(chan struct{})
	f.first = make(chan struct{})
	ts := newServer(t, f, Options{
		APIKeys: []APIKey{mustKey(t, "k1", "a"), mustKey(t, "k2", "b")},
		Limits:  Limits{TenantRequests: 1, QueuedRequests: 1},
	})
	done := make(chan reply, 3)
	go func() { done <- ts.post(t, "/v1/chat/completions/input_tokens", `{`+hello+`}`, "X-Api-Key", "k1") }()
	go func() { done <- ts.post(t, "/v1/completions", `{"prompt":"x"}`, "X-Api-Key", "k2") }()
	eventually(t, "both have entered", func() bool { return f.rendering.Load() == 1 && f.running.Load() == 1 })
	for path, body := range map[string]string{
		"/v1/completions":                   `{"prompt":"x"}`,
		"/v1/chat/completions/input_tokens": `{` + hello + `}`,
		"/tokenize":                         `{"prompt":"x"}`,
		"/detokenize":                       `{"tokens":[1]}`,
	} {
		for _, key := range []string{"k1", "k2"} {
			r := ts.post(t, path, body, "X-Api-Key", key)
			if e := parseError(t, r.body); r.status != 429 || e.Code != "rate_limit_exceeded" {
				t.Errorf("%s with %s: %d %+v", path, key, r.status, e)
			}
			retryAfter(t, r)
		}
	}
	close(f.render)
	close(f.first)
	for range 2 {
		if r := <-done; r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	ts.queue.mu.Lock()
	defer ts.queue.mu.Unlock()
	if ts.queue.waiting != 0 || len(ts.queue.tenants) != 0 {
		t.Errorf("left over: %d sequences, tenants %v", ts.queue.waiting, ts.queue.tenants)
	}
}

func TestRetryAfterFollowsTheQueue(t *testing.T) {
	a := newAdmission(Limits{QueuedRequests: 10, QueuedTokens: 1000, TenantRequests: 1})
	a.gap = 3 * time.Second
	a.waiting = 10
	_, e := a.enter("x", true, 1, 4)
	if e == nil || e.retryAfter != 30*time.Second {
		t.Errorf("ten waiting, one admitted every three seconds: %+v", e)
	}
	a.gap = time.Hour
	if _, e = a.enter("x", true, 1, 4); e == nil || e.retryAfter != 120*time.Second {
		t.Errorf("the official clients ignore more than 120 s: %+v", e)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	ts := newServer(t, newFake(), Options{Limits: Limits{Connections: 2}})
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", ts.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		readUntil(t, c, `{"status":"ok"}`)
		held = append(held, c)
	}
	status, body := splitResponse(t, ts.raw(t, ""))
	if e := parseError(t, body); !strings.Contains(status, " 503 ") || e.Code != "overloaded" {
		t.Errorf("%s %s", status, body)
	}
	held[0].Close()
	eventually(t, "a place is free", func() bool {
		status, _ := splitResponse(t, ts.raw(t, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		return strings.Contains(status, " 200 ")
	})
}

func TestBodiesOnTheirWayAreBoundedTogether(t *testing.T) {
	ts := newServer(t, newFake(), Options{Limits: Limits{BodyBytes: 1 << 20, BodyMemory: 1 << 20}})
	header := "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
	slow, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, header+strings.Repeat(" ", 800000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first body is counted", func() bool { return ts.memory.left.Load() < 400<<10 })
	status, body := splitResponse(t, ts.raw(t, header+strings.Repeat(" ", 900000)))
	if e := parseError(t, body); !strings.Contains(status, " 503 ") || e.Code != "overloaded" {
		t.Errorf("%s %s", status, body)
	}
	slow.Close()
	eventually(t, "the memory is given back", func() bool { return ts.memory.left.Load() == 1<<20 })
}

func TestChoicesThatCanNeverWaitTogetherAreRefused(t *testing.T) {
	s := newServer(t, newFake(), Options{Limits: Limits{QueuedRequests: 3, QueuedTokens: 20}})
	for body, want := range map[string]int{
		`{"prompt":[1,2,3,4,5,6,7,8,9,10,11,12],"n":2,"max_tokens":1}`:                         400, // 24 tokens
		`{"prompt":[1,2,3,4],"n":4,"max_tokens":1}`:                                            400, // four choices
		`{"prompt":[1,2,3,4],"n":3,"max_tokens":1}`:                                            200,
		`{"prompt":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22],"max_tokens":1}`: 200, // alone
	} {
		if r := s.post(t, "/v1/completions", body); r.status != want {
			t.Errorf("%s: %d %s, want %d", body, r.status, r.body, want)
		}
	}
}

func TestBodiesThatAreRenderedAreBoundedTogether(t *testing.T) {
	body := `{"messages":[{"role":"user","content":"` + strings.Repeat("x", 900<<10) + `"}]}`
	for _, path := range []string{"/v1/chat/completions", "/v1/chat/completions/input_tokens", "/tokenize"} {
		t.Run(path, func(t *testing.T) {
			f := newFake()
			f.render = make(chan struct{})
			ts := newServer(t, f, Options{Limits: Limits{BodyBytes: 1 << 20, BodyMemory: 1 << 20}})
			done := make(chan reply, 1)
			go func() { done <- ts.post(t, path, body) }()
			eventually(t, "the first is rendered", func() bool { return f.rendering.Load() == 1 })
			r := ts.post(t, path, body)
			if e := parseError(t, r.body); r.status != 503 || e.Code != "overloaded" {
				t.Errorf("%d %+v", r.status, e)
			}
			close(f.render)
			<-done
			eventually(t, "the memory is given back", func() bool { return ts.memory.left.Load() == 1<<20 })
		})
	}
}
