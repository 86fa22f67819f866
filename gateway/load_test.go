package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// loadEnv makes TestManyStreams run at full size and assert the latency.
const loadEnv = "MOASERVE_LOAD"

// TestManyStreams holds many slow streams open at once and looks at what is left
// of them. At full size it also measures how much later than the engine sent it
// an event reaches its client (which shares the process and its cores).
//
//	MOASERVE_LOAD=1 go test -run TestManyStreams -v ./gateway
func TestManyStreams(t *testing.T) {
	streams, tokens, gap := 200, 20, 20*time.Millisecond
	full := os.Getenv(loadEnv) != ""
	if full {
		streams, tokens, gap = 2000, 100, 200*time.Millisecond
	}
	raiseFileLimit(t, uint64(2*streams+256))

	l := startLoad(t, streams, gap)
	// What is allocated once: pools, metrics, and a descriptor for each goroutine
	// that ever ran at a time, which the Go runtime keeps.
	l.run(t, streams, 15) // more than the ten gaps in which they arrive
	before := heapInUse()
	p99 := l.measure(t, streams, tokens)
	if full && p99 > 5*time.Millisecond {
		t.Errorf("p99 %v is above 5 ms", p99)
	}
	after := heapInUse()
	t.Logf("heap %d KiB before, %d KiB after", before>>10, after>>10)
	// A stream that were kept would cost its 16 KiB read buffer and more.
	if limit := before + uint64(streams)<<10; after > limit {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	l.stop(t)
	goleak.VerifyNone(t, leakOptions...)
}

// load is a server under load. Its texts are the times at which they were made.
type load struct {
	epoch  time.Time
	gap    time.Duration
	engine *fakeEngine
	server *Server
	addr   string
	served chan error
}

func startLoad(t *testing.T, streams int, gap time.Duration) *load {
	t.Helper()
	l := &load{epoch: time.Now(), gap: gap, engine: newFake(), served: make(chan error, 1)}
	l.engine.gap = gap
	l.engine.text = func(int) string { return strconv.FormatInt(int64(time.Since(l.epoch)), 10) }
	var err error
	// The streams arrive within one gap: all of them may wait for a moment.
	if l.server, err = New(l.engine, Options{Limits: Limits{QueuedRequests: streams}}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = ln.Addr().String()
	go func() { l.served <- l.server.Serve(ln) }()
	return l
}

// measure runs streams, reports the delays of their events and returns the 99th
// percentile.
func (l *load) measure(t *testing.T, streams, tokens int) time.Duration {
	t.Helper()
	start := time.Now()
	delays := l.run(t, streams, tokens)
	slices.Sort(delays)
	at := func(q float64) time.Duration { return delays[int(q*float64(len(delays)-1))] }
	t.Logf("%d streams, %d events in %.1f s: added latency p50 %v, p90 %v, p99 %v, p99.9 %v, max %v",
		streams, len(delays), time.Since(start).Seconds(), at(.5), at(.9), at(.99), at(.999), at(1))
	if want := streams * tokens; len(delays) != want {
		t.Errorf("%d events arrived, want %d", len(delays), want)
	}
	return at(.99)
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-l.served; err != nil {
		t.Error(err)
	}
}

// run holds streams until all have ended and returns the delay of each event.
func (l *load) run(t *testing.T, streams, tokens int) []time.Duration {
	t.Helper()
	l.engine.tokens = tokens
	delays := make([][]time.Duration, streams)
	errs := make([]error, streams)
	var wg sync.WaitGroup
	for i := range streams {
		// Spread the arrivals over ten gaps: the events are then spread too, and
		// what is measured is streaming, not accepting connections.
		time.Sleep(10 * l.gap / time.Duration(streams))
		wg.Go(func() { delays[i], errs[i] = readStream(l.addr, l.epoch, tokens) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	return slices.Concat(delays...)
}

// readStream requests a stream whose texts are the times at which they were made.
func readStream(addr string, epoch time.Time, tokens int) ([]time.Duration, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	body := `{` + hello + `,"stream":true}`
	if _, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return nil, err
	}
	delays := make([]time.Duration, 0, tokens)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, fmt.Errorf("after %d events: %w", len(delays), err)
		}
		now := time.Since(epoch)
		if bytes.HasPrefix(line, []byte("data: [DONE]")) {
			return delays, nil
		}
		_, rest, ok := bytes.Cut(line, []byte(`"delta":{"content":"`))
		if !ok {
			continue
		}
		digits, _, _ := bytes.Cut(rest, []byte(`"`))
		sent, err := strconv.ParseInt(string(digits), 10, 64)
		if err != nil {
			return nil, err
		}
		delays = append(delays, now-time.Duration(sent))
	}
}

// heapInUse returns the live heap. Pools survive one collection.
func heapInUse() uint64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func raiseFileLimit(t *testing.T, need uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur >= need {
		return
	}
	l.Cur = min(need, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur < need {
		t.Skipf("needs %d open files, may have %d: %v", need, l.Max, err)
	}
}
