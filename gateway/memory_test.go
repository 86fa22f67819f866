package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestKVPagesAreShownByState(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	r := ts.do(t, http.MethodGet, "/moaserve/kv", "")
	if r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	var got kvState
	if err := json.Unmarshal(r.body, &got); err != nil {
		t.Fatal(err)
	}
	if p := got.Pages; p.Total != 1000 || p.Used != 250 || p.Cached != 500 || p.Free != 250 || got.Prefixes != 9 || got.Evictions != 4 || got.Waiting != 3 || got.PageTokens != 64 {
		t.Errorf("%s", r.body)
	}
	want := []planState{{"moa-50", holding{2, 4096, 700}, holding{3, 1024, 90}}}
	if want := (diskState{3, 3 << 20, 5, 2, 2, 7}); got.Disk != want {
		t.Errorf("disk %+v, want %+v", got.Disk, want)
	}
	if got.PinnedPrefixes != 2 || got.Sessions != 1 || !slices.Equal(got.Plans, want) {
		t.Errorf("%s", r.body)
	}
}

func TestSessionIsNamedByHeaderOrCacheKey(t *testing.T) {
	for name, c := range map[string]struct {
		header, body string
		want         string
	}{
		"neither":               {"", "", ""},
		"header":                {"chat 1", "", "chat 1"},
		"cache key":             {"", `,"prompt_cache_key":"doc/ä"`, "doc/ä"},
		"the header goes first": {"h", `,"prompt_cache_key":"k"`, "h"},
		"null":                  {"", `,"prompt_cache_key":null`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			ts := newServer(t, f, Options{})
			var headers []string
			if c.header != "" {
				headers = []string{"X-Session-ID", c.header}
			}
			for _, path := range []string{"/v1/chat/completions", "/v1/completions"} {
				if r := ts.post(t, path, `{`+promptOf(path)+c.body+`}`, headers...); r.status != http.StatusOK {
					t.Fatalf("%s: %d %s", path, r.status, r.body)
				}
			}
			for _, r := range f.requests() {
				if r.Session != c.want {
					t.Errorf("session %q, want %q", r.Session, c.want)
				}
			}
		})
	}
}

// promptOf returns the field of a small prompt.
func promptOf(path string) string {
	if path == "/v1/completions" {
		return `"prompt":"x"`
	}
	return hello
}

func TestSessionNamesAreChecked(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	for name, c := range map[string]struct{ header, body string }{
		"long header":              {strings.Repeat("x", 257), ""},
		"header that is not UTF-8": {"a\xffb", ""},
		"control in the key":       {"", `,"prompt_cache_key":"a\u0007"`},
		"empty key":                {"", `,"prompt_cache_key":""`},
		"long key":                 {"", `,"prompt_cache_key":"` + strings.Repeat("x", 257) + `"`},
		"number as key":            {"", `,"prompt_cache_key":7`},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if c.header != "" {
				headers = []string{"X-Session-ID", c.header}
			}
			r := ts.post(t, "/v1/chat/completions", `{`+hello+c.body+`}`, headers...)
			if e := parseError(t, r.body); r.status != http.StatusBadRequest || e.Param == nil {
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
}

func TestTenantsSeeAndEndTheirOwnSessions(t *testing.T) {
	f := newFake()
	f.sessions = map[string]string{"a": "chat 1/ü", "b": "other"}
	ts := newServer(t, f, Options{APIKeys: []APIKey{mustKey(t, "first", "a"), mustKey(t, "second", "b")}})
	r := ts.do(t, http.MethodGet, "/moaserve/sessions", "", "X-Api-Key", "first")
	want := `{"object":"list","data":[{"id":"chat 1/ü","plan":"moa-50","created":"2023-11-14T22:13:20Z","used":"2023-11-14T22:14:20Z",` +
		`"requests":2,"running":1,"prompt_tokens":900,"cached_tokens":320,"kept":{"count":1,"tokens":448,"pages":40}}]}`
	if r.status != http.StatusOK || string(r.body) != want {
		t.Errorf("%d %s, want %s", r.status, r.body, want)
	}
	const path = "/moaserve/sessions/chat%201%2F%C3%BC"
	r = ts.do(t, http.MethodDelete, path, "", "X-Api-Key", "second")
	if e := parseError(t, r.body); r.status != http.StatusNotFound || e.Code != "session_not_found" {
		t.Errorf("another tenant's session: %d %s", r.status, r.body)
	}
	r = ts.do(t, http.MethodDelete, path, "", "X-Api-Key", "first")
	if r.status != http.StatusOK || string(r.body) != `{"id":"chat 1/ü","object":"session","deleted":true}` {
		t.Errorf("%d %s", r.status, r.body)
	}
}
