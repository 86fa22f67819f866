package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/moaserve/moaserve/gateway"
	"github.com/moaserve/moaserve/internal/testmodel"
	"github.com/moaserve/moaserve/runtime"
)

// serveModel serves a model in this process, at the address that it returns.
func serveModel(t *testing.T, model string, engine runtime.Options, o gateway.Options) (*runtime.Engine, string) {
	t.Helper()
	e, err := runtime.Open(t.Context(), model, engine)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gateway.New(newServed(e, time.Now()), o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, ln.Addr().String()
}

// post opens a connection of its own and sends a chat request on it.
func post(t *testing.T, address, body string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn := c.(*net.TCPConn)
	t.Cleanup(func() { _ = conn.Close() })
	// A small window: a reader that stalls is felt soon.
	if err := conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// Every way of leaving frees the pages within 100 ms of the end of the step in
// which it happened, in a prefill of 6000 tokens and in decode.
func TestClientThatLeavesFreesItsPages(t *testing.T) {
	e, address := serveModel(t, testmodel.Path(t), runtime.Options{}, gateway.Options{Timeouts: gateway.Timeouts{Flush: 300 * time.Millisecond}})
	long := strings.Repeat("word ", 6000)
	request := func(content, more string) string {
		return fmt.Sprintf(`{"messages":[{"role":"user","content":%q}],"ignore_eos":true,%s}`, content, more)
	}
	const (
		streamed = `"stream":true`
		whole    = `"stream":false`
		chatty   = `"stream":true,"n":16,"logprobs":true,"top_logprobs":20,"max_tokens":6000`
	)
	leave := map[string]func(*net.TCPConn) error{
		"FIN":        func(c *net.TCPConn) error { return c.Close() },
		"half-close": func(c *net.TCPConn) error { return c.CloseWrite() },
		"RST": func(c *net.TCPConn) error {
			if err := c.SetLinger(0); err != nil {
				return err
			}
			return c.Close()
		},
		"stall": func(*net.TCPConn) error { return nil },
	}
	for _, c := range []struct {
		name, how string
		body      string
		decoding  bool
	}{
		{"FIN in a streamed prefill", "FIN", request(long, streamed), false},
		{"FIN in a prefill that is not streamed", "FIN", request(long, whole), false},
		{"RST in a streamed prefill", "RST", request(long, streamed), false},
		{"RST in a prefill that is not streamed", "RST", request(long, whole), false},
		{"half-close in a prefill that is not streamed", "half-close", request(long, whole), false},
		{"FIN in a streamed decode", "FIN", request("Count.", streamed), true},
		{"FIN in a decode that is not streamed", "FIN", request("Count.", whole), true},
		{"RST in a streamed decode", "RST", request("Count.", streamed), true},
		{"RST in a decode that is not streamed", "RST", request("Count.", whole), true},
		{"half-close in a decode that is not streamed", "half-close", request("Count.", whole), true},
		{"stalled reader in decode", "stall", request("Count.", chatty), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			// No prompt begins like another: none is in the prefix cache.
			body := strings.Replace(c.body, `"content":"`, fmt.Sprintf(`"content":"%s: `, c.name), 1)
			before := e.Stats()
			conn := post(t, address, body)
			// In the prefill: after its first chunk of twelve. In decode: some tokens on.
			await(t, 60*time.Second, "the request to be under way", func() bool {
				s := e.Stats()
				if c.decoding {
					return s.DecodeTokens > before.DecodeTokens+3
				}
				return s.PrefillTokens > before.PrefillTokens
			})
			if err := leave[c.how](conn); err != nil {
				t.Fatal(err)
			}
			if c.how == "stall" {
				// Only the full window tells that nobody reads.
				await(t, 120*time.Second, "the stalled reader's pages", func() bool { return e.Stats().UsedPages == 0 })
				return
			}
			left := e.Stats()
			if !c.decoding && left.PrefillTokens-before.PrefillTokens > 4000 {
				t.Fatalf("the prefill was nearly over: %d tokens", left.PrefillTokens-before.PrefillTokens)
			}
			await(t, 30*time.Second, "the step to end", func() bool {
				s := e.Stats()
				return s.Steps > left.Steps || s.UsedPages == 0
			})
			step := time.Now()
			await(t, 30*time.Second, "the pages", func() bool { return e.Stats().UsedPages == 0 })
			if d := time.Since(step); d > 100*time.Millisecond {
				t.Errorf("the pages were freed %v after the end of the step, want at most 100 ms", d)
			}
			if n := e.Stats().PrefillTokens - before.PrefillTokens; !c.decoding && n > 5000 {
				t.Errorf("%d prompt tokens were computed for a client that had left", n)
			}
		})
	}
	// The server still answers.
	conn := post(t, address, request("Hello", `"stream":false,"max_tokens":4`))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "200") {
		t.Errorf("after all that: %q, %v", line, err)
	}
}

// await polls until ok.
func await(t *testing.T, atMost time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(atMost); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", atMost, what)
		}
	}
}
