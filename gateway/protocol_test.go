package gateway

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestProtocolErrorsAreJSONAndQuoteNothing(t *testing.T) {
	const secret = "sk-very-secret"
	post := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\nContent-Type: application/json\r\n"
	ts := newServer(t, newFake(), Options{
		Limits:   Limits{BodyBytes: 64 << 10},
		Timeouts: Timeouts{Header: 300 * time.Millisecond, Body: 300 * time.Millisecond},
	})
	for _, tc := range []struct {
		name, request string
		status        int
		code          string
	}{
		{"garbage", secret + "\r\n\r\n", 400, "malformed_request"},
		{"no version", "GET /" + secret + "\r\n\r\n", 400, "malformed_request"},
		{"space in a header name", "GET / HTTP/1.1\r\nHost: x\r\nX y : " + secret + "\r\n\r\n", 400, "malformed_request"},
		{"no host", "GET /v1/models HTTP/1.1\r\nX: " + secret + "\r\n\r\n", 400, "malformed_request"},
		{"both framings", post + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400, "malformed_request"},
		{"both framings, other order and case", post + "transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400, "malformed_request"},
		{"two lengths", post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "malformed_request"},
		{"negative length", post + "Content-Length: -2\r\n\r\n{}", 400, "malformed_request"},
		{"strange transfer encoding", post + "Transfer-Encoding: gzip\r\n\r\n", 400, "malformed_request"},
		{"bad chunk", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400, "malformed_request"},
		{"no length", post + "Connection: close\r\n\r\n", 411, "length_required"},
		{"length over the limit", post + "Content-Length: 100000\r\n\r\n{}", 413, "request_too_large"},
		{"chunks over the limit", post + "Transfer-Encoding: chunked\r\n\r\n18000\r\n" + strings.Repeat("x", 0x18000) + "\r\n0\r\n\r\n", 413, "request_too_large"},
		{"large header", "GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 17<<10) + "\r\n\r\n", 431, "request_header_too_large"},
		{"long path", "GET /" + strings.Repeat("x", 17<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431, "request_header_too_large"},
		{"slow headers", "GET / HTTP/1.1\r\nHost:", 408, "request_timeout"},
		{"slow body", post + "Content-Length: 100\r\n\r\n{", 408, "request_timeout"},
		{"nothing at all", "", 408, "request_timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			raw := ts.raw(t, tc.request)
			status, body := splitResponse(t, raw)
			e := parseError(t, body)
			if !strings.Contains(status, fmt.Sprintf(" %d ", tc.status)) || e.Code != tc.code {
				t.Errorf("got %s %s, want %d %s", status, e.Code, tc.status, tc.code)
			}
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("the response quotes the request: %s", raw)
			}
			if !bytes.Contains(raw, []byte("Connection: close")) {
				t.Errorf("the connection stays open: %s", raw)
			}
		})
	}
}

func TestADecompressionBombIsNotInflated(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	ts := newServer(t, newFake(), Options{})
	r := ts.post(t, "/v1/chat/completions", bomb.String(), "Content-Encoding", "gzip")
	if e := parseError(t, r.body); r.status != 415 || e.Code != "unsupported_content_encoding" {
		t.Errorf("%d %s", r.status, e.Code)
	}
}

func TestAClientStillSendingGetsTheRefusal(t *testing.T) {
	ts := newServer(t, newFake(), Options{Limits: Limits{BodyBytes: 64 << 10}})
	c, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 2000000)); err != nil {
		t.Fatalf("cut while sending: %v", err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := splitResponse(t, b); !strings.Contains(status, " 413 ") {
		t.Error(status)
	}
}

func TestChunkedBodiesAreAccepted(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	body := `{` + hello + `}`
	raw := ts.raw(t, fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body))
	if status, _ := splitResponse(t, raw); !strings.Contains(status, " 200 ") {
		t.Error(status)
	}
}

func TestExpectContinueIsAnswered(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	c, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	body := `{` + hello + `}`
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	readUntil(t, c, "100 Continue")
	if _, err := io.WriteString(c, body); err != nil {
		t.Fatal(err)
	}
	readUntil(t, c, "200 OK")
}

func TestAPanicInAHandlerIsAnInternalError(t *testing.T) {
	ts := newServer(t, panickyEngine{newFake()}, Options{})
	for range 2 {
		r := ts.post(t, "/v1/completions", `{"prompt":"x"}`)
		if e := parseError(t, r.body); r.status != 500 || e.Code != "internal_error" {
			t.Errorf("%d %s", r.status, e.Code)
		}
	}
	if ts.queue.waiting != 0 {
		t.Errorf("%d places in the queue are lost", ts.queue.waiting)
	}
}

// panickyEngine panics where a handler calls it.
type panickyEngine struct{ *fakeEngine }

func (panickyEngine) Tokenize(string, bool, bool) []int32 { panic("tokenizer bug") }
