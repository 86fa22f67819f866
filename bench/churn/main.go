// Command churn sends many short random requests through an engine, some of them cancelled,
// and looks whether anything stays behind: pages, commitments, device memory, memory of
// the process.
//
//	go run ./bench/churn -model MODEL.gguf -requests 100000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"strings"
	"sync"
	"time"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/sample"
)

// options are the flags.
type options struct {
	model, backend, plans      string
	requests, streams, reports int
	prompt, tokens             int
	seed                       uint64
}

func main() {
	var o options
	flag.StringVar(&o.model, "model", "models/SmolLM2-135M-Instruct.Q4_1.gguf", "model file or folder, or synthetic:NAME")
	flag.StringVar(&o.backend, "backend", "auto", "auto, cpu or cuda")
	flag.StringVar(&o.plans, "plans", "dense,uniform:50%", "plans that the requests take by chance, separated by commas")
	flag.IntVar(&o.requests, "requests", 100_000, "requests in all")
	flag.IntVar(&o.streams, "streams", 96, "requests at a time")
	flag.IntVar(&o.reports, "reports", 10, "how often to let everything end and look")
	flag.IntVar(&o.prompt, "prompt", 200, "longest prompt, in tokens")
	flag.IntVar(&o.tokens, "tokens", 24, "longest answer, in tokens")
	flag.Uint64Var(&o.seed, "seed", 1, "of the requests")
	flag.Parse()
	if err := churn(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// state is what is left when no request runs.
type state struct {
	requests, cancelled, tokens int
	used, committed, cached     int   // pages
	device                      int64 // free bytes of the device; -1 when it does not tell
	heap                        uint64
	goroutines                  int
}

func churn(ctx context.Context, o options) error {
	plans := strings.Split(o.plans, ",")
	e, err := runtime.Open(ctx, o.model, runtime.Options{
		Backend: o.backend, Plan: plans[0], Plans: plans[1:], KVBytes: 1 << 30, MaxSequences: o.streams, MaxQueuedRequests: 2 * o.streams, Warm: true,
	})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	var names []string
	for _, p := range e.Plans() {
		names = append(names, p.Name)
	}
	fmt.Printf("%s, %s, plans %s\n", e.Name(), e.Describe(), strings.Join(names, ", "))
	fmt.Println("requests  cancelled    tokens  seconds  pages used  committed  cached  device free MB  heap MB  goroutines")
	var states []state
	var total state
	start := time.Now()
	for part := range o.reports {
		n := o.requests*(part+1)/o.reports - total.requests
		done, err := run(ctx, e, o, names, n, o.seed+uint64(part))
		if err != nil {
			return err
		}
		total.requests, total.cancelled, total.tokens = total.requests+done.requests, total.cancelled+done.cancelled, total.tokens+done.tokens
		s := look(e)
		s.requests, s.cancelled, s.tokens = total.requests, total.cancelled, total.tokens
		states = append(states, s)
		device := "-"
		if s.device >= 0 {
			device = fmt.Sprintf("%.1f", float64(s.device)/1e6)
		}
		fmt.Printf("%8d  %9d  %8d  %7.0f  %10d  %9d  %6d  %14s  %7.1f  %10d\n",
			s.requests, s.cancelled, s.tokens, time.Since(start).Seconds(), s.used, s.committed, s.cached, device, float64(s.heap)/1e6, s.goroutines)
	}
	return verdict(states)
}

// verdict says what leaked. Device memory is held against that after the first part: by
// then the shapes of steps have come up, whose graphs stay.
func verdict(states []state) error {
	var errs []error
	for _, s := range states {
		if s.used != 0 || s.committed != 0 {
			errs = append(errs, fmt.Errorf("after %d requests %d pages are in use and %d committed, with nothing running", s.requests, s.used, s.committed))
		}
	}
	if first, last := states[0], states[len(states)-1]; last.device < first.device {
		errs = append(errs, fmt.Errorf("the device lost %d bytes between request %d and %d", first.device-last.device, first.requests, last.requests))
	}
	return errors.Join(errs...)
}

// look waits until nothing runs.
func look(e *runtime.Engine) state {
	for s := e.Stats(); s.Running+s.Waiting > 0; s = e.Stats() {
		time.Sleep(time.Millisecond)
	}
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	s := e.Stats()
	free := int64(-1)
	if n, ok := e.DeviceFree(); ok {
		free = n
	}
	return state{used: s.UsedPages, committed: s.CommittedPages, cached: s.CachedPages, device: free, heap: m.HeapAlloc, goroutines: goruntime.NumGoroutine()}
}

// run sends n requests, so many at a time.
func run(ctx context.Context, e *runtime.Engine, o options, plans []string, n int, seed uint64) (state, error) {
	work := make(chan uint64)
	var mu sync.Mutex
	var done state
	var failed error
	var wg sync.WaitGroup
	for range o.streams {
		wg.Go(func() {
			for i := range work {
				tokens, cancelled, err := request(ctx, e, o, plans, rand.New(rand.NewPCG(seed, i)))
				mu.Lock()
				done.requests++
				done.tokens += tokens
				if cancelled {
					done.cancelled++
				}
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		work <- uint64(i)
	}
	close(work)
	wg.Wait()
	return done, failed
}

// request sends one random request. Every eighth is cancelled on the way, a quarter
// begin alike, some are sampled with penalties.
func request(ctx context.Context, e *runtime.Engine, o options, plans []string, rnd *rand.Rand) (tokens int, cancelled bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := runtime.Request{
		Prompt: make([]int32, 1+rnd.IntN(o.prompt)), Plan: plans[rnd.IntN(len(plans))], MaxTokens: 1 + rnd.IntN(o.tokens), IgnoreEOS: true,
		Tenant: fmt.Sprint(rnd.IntN(3)),
	}
	text := rnd
	if rnd.IntN(4) == 0 {
		text = rand.New(rand.NewPCG(o.seed, uint64(rnd.IntN(16))))
	}
	for i := range r.Prompt {
		r.Prompt[i] = int32(text.IntN(e.Model().Vocab))
	}
	switch rnd.IntN(4) {
	case 0:
		r.Sampling = sample.Params{Temperature: 0.8, TopP: 0.9, TopK: 40, Seed: rnd.Uint64()}
	case 1:
		r.Sampling = sample.Params{Temperature: 1, RepetitionPenalty: 1.1, Seed: rnd.Uint64()}
	}
	cancelAt := -1
	if rnd.IntN(8) == 0 {
		cancelAt = rnd.IntN(r.MaxTokens)
	}
	events, err := e.Generate(ctx, r)
	if err != nil {
		return 0, false, err
	}
	if cancelAt == 0 {
		cancel()
	}
	for ev := range events {
		tokens += len(ev.Tokens)
		if cancelAt >= 0 && tokens >= cancelAt {
			cancel()
		}
		if ev.Kind == runtime.EventFinished {
			cancelled = ev.Reason == runtime.ReasonCancelled
			err = ev.Err
		}
	}
	return tokens, cancelled, err
}
