package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/moaserve/moaserve/gateway"
	"github.com/moaserve/moaserve/runtime"
)

func TestGapsAreSplitByTheLongPrompt(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	s := &gapStream{enough: 1 << 30}
	for i := range settleSteps + 3 {
		s.arrive(at(10 * i)) // the last at 100
	}
	s.arrive(at(150)) // the prompt was asked for at 105
	s.arrive(at(180))
	s.arrive(at(195)) // its first token came at 190
	s.arrive(at(205))
	before, within := s.split(at(105), at(190))
	if len(before) != 2 || before[0] != 10*time.Millisecond {
		t.Errorf("alone: %v", before)
	}
	if len(within) != 3 || within[0] != 50*time.Millisecond || within[1] != 30*time.Millisecond || within[2] != 15*time.Millisecond {
		t.Errorf("beside: %v", within)
	}
}

// lateTarget answers prompts at once; streams end after some tokens.
type lateTarget struct{ tokens int }

var _ gapTarget = (*lateTarget)(nil)

func (l *lateTarget) complete(ctx context.Context, prompt, answer int, _ uint64, arrived func(time.Time)) error {
	for range min(answer, l.tokens) {
		arrived(time.Now())
	}
	if answer > l.tokens {
		return errors.New("the server is tired")
	}
	return nil
}

func TestAStreamThatEndsTooEarlyIsAnError(t *testing.T) {
	g := &gapMeter{target: &lateTarget{tokens: 5}, long: 10, stream: 10, answer: 100, alone: 20}
	if err := g.measure(t.Context(), 1, false); err == nil || !strings.Contains(err.Error(), "before 28 gaps") || !strings.Contains(err.Error(), "tired") {
		t.Errorf("got %v", err)
	}
}

// serveTiny serves the smallest synthetic model in this process.
func serveTiny(t *testing.T) (*runtime.Engine, string) {
	t.Helper()
	e, err := runtime.Open(t.Context(), "synthetic:tiny", runtime.Options{Backend: "cpu"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := gateway.New(newServed(e, time.Now()), gateway.Options{})
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
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Error(err)
		}
	})
	return e, "http://" + ln.Addr().String()
}

func TestGapsAreMeasuredInProcessAndOverHTTP(t *testing.T) {
	e, url := serveTiny(t)
	server, err := newServerTarget(t.Context(), url, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]gapTarget{"engine": &engineTarget{engine: e, plan: "dense"}, "server": server} {
		t.Run(name, func(t *testing.T) {
			g := &gapMeter{target: target, long: 600, stream: 100, answer: 3000, alone: 30}
			if err := g.measure(t.Context(), 2, true); err != nil {
				t.Fatal(err)
			}
			p := gapPoint{Model: e.Name(), Runs: 2, LongPromptTokens: 600}
			g.summarise(&p)
			// Text arrives in whole characters, so that a few tokens make no chunk of their own.
			if p.GapsAlone < 2*20 || p.GapsBeside == 0 || p.PrefillAlone <= 0 || p.PrefillBeside <= 0 || p.GapBesideMax < p.GapBesideP95 {
				t.Errorf("%+v", p)
			}
			var out bytes.Buffer
			if err := p.print(&out); err != nil || !strings.Contains(out.String(), "beside each other") {
				t.Errorf("%v: %s", err, out.String())
			}
		})
	}
	deadline := time.Now().Add(5 * time.Second)
	for e.Stats().Running > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if s := e.Stats(); s.Running != 0 {
		t.Errorf("%d streams still run", s.Running)
	}
}
