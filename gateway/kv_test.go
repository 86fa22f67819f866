package gateway

import (
	"encoding/json"
	"net/http"
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
}
