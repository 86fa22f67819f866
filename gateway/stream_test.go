package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moaserve/moaserve/runtime"
)

// loneStream returns a stream of one sequence whose events are in ch already.
func loneStream(t testing.TB, ts *testServer, ch chan runtime.Event) *sseStream {
	t.Helper()
	j := &job{envelope: envelope{shape: shapeChat, id: "chatcmpl-1", model: "tiny"}, params: params{n: 1}, requests: make([]runtime.Request, 1)}
	if e := ts.enter(); e != nil {
		t.Fatal(e)
	}
	ticket, e := ts.queue.enter("", false, 1, 0)
	if e != nil {
		t.Fatal(e)
	}
	g := &generation{s: ts.Server, ticket: ticket, n: 1, unfinished: 1, single: ch, watch: &peerWatch{}}
	g.ctx, g.cancel = context.WithCancelCause(context.Background())
	g.meters = []meter{{modelMetrics: ts.metrics.forModel("tiny"), start: time.Now(), last: time.Now()}}
	st := &sseStream{g: g, j: j, chunks: newChunks(&j.envelope, false), cached: make([]int, 1), timer: time.NewTimer(time.Hour)}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func textEvent(text string) runtime.Event {
	return runtime.Event{Kind: runtime.EventText, Text: text, Tokens: someToken}
}

func TestWaitingEventsShareAFlush(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	ch := make(chan runtime.Event, 16)
	for range 10 {
		ch <- textEvent("x")
	}
	st := loneStream(t, ts, ch)
	p := make([]byte, batchBytes)
	n, err := st.Read(p)
	if got := strings.Count(string(p[:n]), "data: "); err != nil || got != 10 {
		t.Errorf("%d events in one read, %v", got, err)
	}
	// A reader with less room gets the same bytes in pieces.
	for range 3 {
		ch <- textEvent("y")
	}
	ch <- runtime.Event{Kind: runtime.EventFinished, Reason: runtime.ReasonStop}
	var all strings.Builder
	for small := make([]byte, 7); ; {
		n, err := st.Read(small)
		all.Write(small[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := frames(t, []byte(all.String())); len(got) != 5 || got[4] != "[DONE]" {
		t.Errorf("%q", got)
	}
}

func TestAStreamedTokenCostsNoAllocation(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	ch := make(chan runtime.Event, 1)
	st := loneStream(t, ts, ch)
	ev := textEvent(" word")
	p := make([]byte, batchBytes)
	allocs := testing.AllocsPerRun(1000, func() {
		ch <- ev
		if _, err := st.Read(p); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a token", allocs)
	}
}

func BenchmarkStreamedToken(b *testing.B) {
	ts := newServer(b, newFake(), Options{})
	ch := make(chan runtime.Event, 1)
	st := loneStream(b, ts, ch)
	ev := textEvent(" word")
	p := make([]byte, batchBytes)
	b.ReportAllocs()
	for b.Loop() {
		ch <- ev
		if _, err := st.Read(p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func TestRequestIDsAreKeptWhenHarmless(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	for _, tc := range []struct {
		given string
		kept  bool
	}{
		{"abc-123_X.y", true}, {strings.Repeat("a", 128), true}, {"", false}, {strings.Repeat("a", 129), false}, {"a b", false}, {"é", false}, {"a;b", false},
	} {
		got := ts.do(t, http.MethodGet, "/health", "", "X-Request-Id", tc.given).header.Get("X-Request-Id")
		if got == "" || (got == tc.given) != tc.kept {
			t.Errorf("%q became %q", tc.given, got)
		}
	}
}

func TestAShortageOfDescriptorsDoesNotEndServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(newFake(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(&shortListener{Listener: ln, failures: 3}) }()
	ts := &testServer{Server: s, addr: ln.Addr().String()}
	if status, _ := splitResponse(t, ts.raw(t, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); !strings.Contains(status, " 200 ") {
		t.Error(status)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// shortListener runs out of file descriptors a few times.
type shortListener struct {
	net.Listener
	failures int
}

func (l *shortListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestHTTP10ClientsGetTheirAnswer(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	for _, stream := range []string{"false", "true"} {
		body := `{` + hello + `,"stream":` + stream + `}`
		raw := ts.raw(t, "POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "+itoa(len(body))+"\r\n\r\n"+body)
		status, got := splitResponse(t, raw)
		if !strings.Contains(status, " 200 ") || !strings.Contains(string(got), "w4 ") {
			t.Errorf("stream %s: %q", stream, raw)
		}
	}
}

func itoa(n int) string { return string(appendInt(nil, n)) }
