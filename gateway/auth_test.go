package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func mustKey(t *testing.T, key, tenant string) APIKey {
	t.Helper()
	k, err := NewAPIKey(key, tenant)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestEveryRouteButThePublicOnesNeedsAKey(t *testing.T) {
	keys := []APIKey{mustKey(t, "first", "a"), mustKey(t, "second", "b")}
	f := newFake()
	f.sessions = map[string]string{"a": "tiny", "b": "tiny"} // for the route that ends one
	ts := newServer(t, f, Options{APIKeys: keys})
	for _, r := range ts.routes() {
		path := strings.Replace(r.path, "+", "tiny", 1)
		body := ""
		if r.method == "POST" {
			body = `{` + hello + `,"prompt":"x","tokens":[1]}`
		}
		public := path == "/health" || path == "/ready"
		for _, tc := range []struct {
			name    string
			headers []string
			ok      bool
		}{
			{"no key", nil, public},
			{"wrong key", []string{"Authorization", "Bearer wrong"}, public},
			{"empty key", []string{"Authorization", "Bearer "}, public},
			{"prefix of a key", []string{"X-Api-Key", "firs"}, public},
			{"other scheme", []string{"Authorization", "Basic first"}, public},
			{"wrong bearer beside a right X-Api-Key", []string{"Authorization", "Bearer x", "X-Api-Key", "first"}, public},
			{"first", []string{"Authorization", "Bearer first"}, true},
			{"second, lower case scheme", []string{"Authorization", "bearer second"}, true},
			{"X-Api-Key", []string{"X-Api-Key", "second"}, true},
		} {
			res := ts.do(t, r.method, path, body, tc.headers...)
			if ok := res.status == 200; ok != tc.ok {
				t.Errorf("%s %s with %s: %d %s", r.method, path, tc.name, res.status, res.body)
			}
			if !tc.ok {
				if e := parseError(t, res.body); res.status != 401 || e.Code != "invalid_api_key" || res.header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s %s with %s: %d %+v", r.method, path, tc.name, res.status, e)
				}
			}
		}
	}
	// What is not a route, or only looks like a public one, needs one too.
	for _, path := range []string{"/nope", "/health/", "/HEALTH", "/%2e%2e/metrics", "//health", "/v1/models/../../health/x"} {
		if res := ts.do(t, "GET", path, "", "X-Forwarded-For", "127.0.0.1"); res.status != 401 {
			t.Errorf("%s: %d", path, res.status)
		}
	}
}

func TestMetricsCanBePublic(t *testing.T) {
	ts := newServer(t, newFake(), Options{APIKeys: []APIKey{mustKey(t, "k", "")}, PublicMetrics: true})
	if r := ts.do(t, "GET", "/metrics", ""); r.status != 200 {
		t.Errorf("%d", r.status)
	}
}

func TestAnUnauthorisedBodyIsNotRead(t *testing.T) {
	ts := newServer(t, newFake(), Options{APIKeys: []APIKey{mustKey(t, "k", "")}})
	// The body is promised and never sent: the answer must not wait for it.
	for _, framing := range []string{"Content-Length: 60000000", "Transfer-Encoding: chunked", "Expect: 100-continue\r\nContent-Length: 60000000"} {
		raw := ts.raw(t, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+framing+"\r\n\r\n")
		status, body := splitResponse(t, raw)
		if e := parseError(t, body); !strings.Contains(status, " 401 ") || e.Code != "invalid_api_key" || !bytes.Contains(raw, []byte("Connection: close")) {
			t.Errorf("%s: %s", framing, raw)
		}
	}
}

func TestEmptyKeysAreRefused(t *testing.T) {
	if _, err := NewAPIKey("", "x"); err == nil {
		t.Error("an empty key was accepted")
	}
}

func TestKeysCarryTheirTenant(t *testing.T) {
	f := newFake()
	ts := newServer(t, f, Options{APIKeys: []APIKey{mustKey(t, "k1", "a"), mustKey(t, "k2", "b")}})
	for _, key := range []string{"k2", "k1"} {
		ts.post(t, "/v1/completions", `{"prompt":"x"}`, "X-Api-Key", key)
	}
	seen := f.requests()
	if got := fmt.Sprint(seen[0].Tenant, seen[1].Tenant); got != "ba" {
		t.Errorf("tenants %s", got)
	}
}

func TestHostsOutsideTheListAreRefused(t *testing.T) {
	ts := newServer(t, newFake(), Options{AllowedHosts: []string{"localhost", "::1"}})
	for _, tc := range []struct {
		host string
		ok   bool
	}{{"localhost", true}, {"localhost:8080", true}, {"[::1]:8080", true}, {"[::1]", true}, {"evil.example", false}, {"localhost.evil.example:80", false}, {"127.0.0.1", false}} {
		r := ts.do(t, "GET", "/health", "", "Host", tc.host)
		if (r.status == 200) != tc.ok {
			t.Errorf("%s: %d", tc.host, r.status)
		}
		if !tc.ok {
			if e := parseError(t, r.body); r.status != 403 || e.Code != "host_not_allowed" {
				t.Errorf("%s: %d %s", tc.host, r.status, e.Code)
			}
		}
	}
}

func TestCORSIsOffUnlessAskedFor(t *testing.T) {
	const origin = "https://app.example"
	preflight := []string{"Origin", origin, "Access-Control-Request-Method", "POST"}
	off := newServer(t, newFake(), Options{})
	if r := off.do(t, "GET", "/health", "", "Origin", origin); r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS headers although off")
	}
	on := newServer(t, newFake(), Options{CORSOrigins: []string{origin}, APIKeys: []APIKey{mustKey(t, "k", "")}})
	r := on.do(t, "OPTIONS", "/v1/chat/completions", "", preflight...)
	if r.status != 204 || r.header.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(r.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight: %d %v", r.status, r.header)
	}
	for _, want := range []string{"GET", "POST", "DELETE"} { // what docs/api.md has
		if !strings.Contains(r.header.Get("Access-Control-Allow-Methods"), want) {
			t.Errorf("a page may not %s: %v", want, r.header)
		}
	}
	if !strings.Contains(r.header.Get("Access-Control-Allow-Headers"), headerSession) {
		t.Errorf("a page may not name a session: %v", r.header)
	}
	// A page must be able to read errors too.
	r = on.post(t, "/v1/chat/completions", `{}`, "Origin", origin)
	if r.status != 401 || r.header.Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("error: %d %v", r.status, r.header)
	}
	r = on.do(t, "OPTIONS", "/v1/chat/completions", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")
	if r.header.Get("Access-Control-Allow-Origin") != "" || r.status == 204 {
		t.Errorf("foreign origin: %d %v", r.status, r.header)
	}
}
