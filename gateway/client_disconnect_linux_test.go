package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Ways to leave. Each is called when everything sent so far has been read, so
// that Close sends a FIN and not a reset.
var departures = []struct {
	name  string
	leave func(*net.TCPConn) error
}{
	{"FIN", (*net.TCPConn).Close},
	{"RST", func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }},
	{"unread bytes then FIN", func(c *net.TCPConn) error {
		_, err := io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		return errors.Join(err, c.Close())
	}},
}

// cancelBound is how soon the engine must learn that a client has gone.
const cancelBound = 100 * time.Millisecond

func TestAClientThatLeavesCancelsItsRequest(t *testing.T) {
	never := make(chan struct{}) // nobody closes it
	for _, moment := range []struct {
		name   string
		stream bool
		engine func(*fakeEngine)
		mark   string // what the client has read before it leaves
	}{
		{"in the queue", false, func(f *fakeEngine) { f.admit = never }, ""},
		{"in the queue, stream", true, func(f *fakeEngine) { f.admit = never }, ""},
		{"in the prefill", false, func(f *fakeEngine) { f.first = never }, ""},
		{"in the prefill, stream", true, func(f *fakeEngine) { f.first = never }, `"role":"assistant"`},
		{"while decoding", false, func(f *fakeEngine) { f.gap = time.Hour }, ""},
		{"while decoding, stream", true, func(f *fakeEngine) { f.gap = time.Hour }, "w0 "},
	} {
		for _, d := range departures {
			t.Run(moment.name+"/"+d.name, func(t *testing.T) {
				f := newFake()
				moment.engine(f)
				ts := newServer(t, f, Options{})
				// On a loaded machine a try can be late for reasons of its own.
				var delay time.Duration
				for range 5 {
					c := ts.dial(t, "/v1/chat/completions", fmt.Sprintf(`{%s,"stream":%v}`, hello, moment.stream))
					started := f.started.Load()
					eventually(t, "the request has started", func() bool { return f.running.Load() == 1 })
					if moment.mark != "" {
						readUntil(t, c, moment.mark)
					}
					left := time.Now()
					if err := d.leave(c); err != nil {
						t.Fatal(err)
					}
					select {
					case end := <-f.ended:
						if !errors.Is(end.cause, errClientGone) {
							t.Fatalf("cancelled because %v", end.cause)
						}
						delay = end.at.Sub(left)
					case <-time.After(5 * time.Second):
						t.Fatalf("request %d was never cancelled", started)
					}
					if delay < cancelBound {
						break
					}
				}
				t.Logf("cancelled after %v", delay)
				if delay >= cancelBound {
					t.Errorf("cancelled after %v in each of five tries", delay)
				}
				eventually(t, "nothing is left of it", func() bool {
					ts.mu.Lock()
					defer ts.mu.Unlock()
					return ts.live == 0 && f.running.Load() == 0
				})
			})
		}
	}
}

func TestAClientThatOnlyHalfClosesGetsItsStream(t *testing.T) {
	for _, before := range []string{"headers", "first token"} {
		t.Run(before, func(t *testing.T) {
			f := newFake()
			gate := make(chan struct{})
			if before == "headers" {
				f.admit = gate
			} else {
				f.first = gate
			}
			ts := newServer(t, f, Options{})
			c := ts.dial(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`)
			eventually(t, "the request has started", func() bool { return f.running.Load() == 1 })
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got := readUntil(t, c, ssePing) // the probe
			close(gate)
			got = append(got, readUntil(t, c, "[DONE]")...)
			if !bytes.Contains(got, []byte("w4 ")) {
				t.Errorf("the answer is incomplete: %s", got)
			}
		})
	}
}

func TestHalfClosingWithoutAStreamIsLeaving(t *testing.T) {
	f := newFake()
	f.first = make(chan struct{})
	ts := newServer(t, f, Options{})
	c := ts.dial(t, "/v1/chat/completions", `{`+hello+`}`)
	eventually(t, "the request has started", func() bool { return f.running.Load() == 1 })
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if end := <-f.ended; !errors.Is(end.cause, errClientGone) {
		t.Errorf("cancelled because %v", end.cause)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	status, body := splitResponse(t, b)
	if e := parseError(t, body); !strings.Contains(status, " 499 ") || e.Code != "client_closed_request" {
		t.Errorf("%s %s", status, e.Code)
	}
}

func TestAStalledReaderIsDroppedAfterTheFlushDeadline(t *testing.T) {
	f := newFake()
	f.tokens = 10000
	big := strings.Repeat("x", 64<<10)
	f.text = func(int) string { return big }
	ts := newServer(t, f, Options{Timeouts: Timeouts{Flush: 200 * time.Millisecond}})
	ts.dial(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`) // and never reads
	select {
	case end := <-f.ended:
		if !errors.Is(end.cause, errClientGone) {
			t.Errorf("cancelled because %v", end.cause)
		}
	case <-time.After(8 * time.Second):
		t.Fatal("the reader was never dropped")
	}
}

func TestASlowButReadingClientIsKept(t *testing.T) {
	f := newFake()
	f.tokens = 40
	big := strings.Repeat("x", 64<<10)
	f.text = func(int) string { return big }
	// All of it takes several times the deadline, no piece of it does.
	ts := newServer(t, f, Options{Timeouts: Timeouts{Flush: 300 * time.Millisecond}})
	c := ts.dial(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`)
	_ = c.SetReadBuffer(64 << 10)
	r := bufio.NewReaderSize(c, 64<<10)
	tail := make([]byte, 0, 64<<10)
	buf := make([]byte, 64<<10)
	for !bytes.Contains(tail, []byte("[DONE]")) {
		time.Sleep(20 * time.Millisecond)
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("cut: %v", err)
		}
		tail = append(tail[:0], buf[max(0, n-4096):n]...)
	}
}

func TestTheConnectionServesTheNextRequestAfterAStream(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	c := ts.dial(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`)
	readUntil(t, c, "[DONE]\n\n\r\n0\r\n\r\n")
	for range 50 {
		body := `{` + hello + `}`
		if _, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			t.Fatal(err)
		}
		readUntil(t, c, `"cached_tokens":0}}}`)
	}
	ts.peers.mu.Lock()
	defer ts.peers.mu.Unlock()
	if n := len(ts.peers.watches); n != 0 {
		t.Errorf("%d watches are left", n)
	}
}

func TestASilentStreamIsPinged(t *testing.T) {
	for _, phase := range []string{"in the queue", "in the prefill"} {
		t.Run(phase, func(t *testing.T) {
			f := newFake()
			gate := make(chan struct{})
			if phase == "in the queue" {
				f.admit = gate
			} else {
				f.first = gate
			}
			ts := newServer(t, f, Options{Timeouts: Timeouts{Ping: 20 * time.Millisecond}})
			c := ts.dial(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`)
			got := readUntil(t, c, ssePing)
			got = append(got, readUntil(t, c, ssePing)...)
			if !bytes.HasPrefix(got, []byte("HTTP/1.1 200 OK")) {
				t.Errorf("headers: %q", got)
			}
			close(gate)
			readUntil(t, c, "[DONE]")
		})
	}
}

func TestAPanicInAStreamEndsOnlyThatStream(t *testing.T) {
	f := newFake()
	f.text = func(i int) string { return "x" }
	ts := newServer(t, f, Options{})
	g, e := panickingStream(ts)
	if e != nil {
		t.Fatal(e)
	}
	defer g.Close()
	b, err := io.ReadAll(g)
	if err != nil {
		t.Fatal(err)
	}
	all := frames(t, b)
	if got := parseError(t, []byte(all[len(all)-1])); got.Code != "internal_error" {
		t.Errorf("%+v", got)
	}
}

// panickingStream returns a stream that panics at its first event.
func panickingStream(ts *testServer) (*sseStream, error) {
	j := &job{envelope: envelope{shape: shapeChat}, params: params{n: 1}}
	g := &generation{s: ts.Server, n: 1, unfinished: 1, watch: &peerWatch{}, cancel: func(error) {}, over: true}
	return &sseStream{g: g, j: j, chunks: newChunks(&j.envelope, false), timer: time.NewTimer(time.Hour)}, nil
}
