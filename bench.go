package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/moaserve/moaserve/runtime"
)

// benchCmd measures the engine: scheduling, sampling and detokenisation are
// part of every figure.
type benchCmd struct {
	modelFlags
	Plans   []string `help:"Plans to measure." default:"dense,moa-50"`
	Depths  []int    `help:"Prompt lengths, in tokens." default:"16,512,2048,7000"`
	Batches []int    `help:"Streams at a time." default:"1"`
	Tokens  int      `help:"Tokens to decode in each stream." default:"64"`
	Repeat  int      `help:"Runs of each point; the best counts." default:"2"`
	JSON    bool     `help:"Print JSON lines instead of a table."`
}

// benchPoint is one row of the result.
type benchPoint struct {
	Plan    string  `json:"plan"`
	Depth   int     `json:"depth"`
	Batch   int     `json:"batch"`
	Prefill float64 `json:"prefill_tok_s"`          // prompt tokens of all streams over the time until the last first token
	Decode  float64 `json:"decode_tok_s,omitempty"` // tokens of all streams a second, while all decode
	TTFT    float64 `json:"ttft_ms"`                // until the last stream's first token
	KVPages int     `json:"kv_pages"`               // of all streams at the end
}

// Run measures every combination of plan, depth and batch.
func (c *benchCmd) Run(ctx context.Context) error {
	o, err := c.options()
	if err != nil {
		return err
	}
	o.Plan, o.Plans = c.Plans[0], c.Plans[1:]
	o.NoPrefixCache = true // a repeated prompt is to be computed again
	for _, b := range c.Batches {
		o.MaxSequences = max(o.MaxSequences, b)
	}
	e, err := runtime.Open(ctx, c.Model, o)
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()

	points := len(c.Plans) * len(c.Depths) * len(c.Batches) * c.Repeat
	bar := progressbar.NewOptions(points, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("measuring"),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetVisibility(!c.JSON && term.IsTerminal(int(os.Stderr.Fd()))))
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	if !c.JSON {
		fmt.Printf("%s, %s\n", e.Name(), e.Describe())
		_, _ = fmt.Fprintln(w, "plan\tdepth\tstreams\tprefill tok/s\tdecode tok/s\tfirst token ms\tKV pages\t")
	}
	for _, name := range c.Plans {
		for _, depth := range c.Depths {
			for _, batch := range c.Batches {
				var best benchPoint
				for r := range c.Repeat {
					p, err := measure(ctx, e, name, depth, batch, c.Tokens, uint64(r))
					if err != nil {
						return err
					}
					best.Plan, best.Depth, best.Batch, best.KVPages = p.Plan, p.Depth, p.Batch, p.KVPages
					best.Prefill, best.Decode = max(best.Prefill, p.Prefill), max(best.Decode, p.Decode)
					if r == 0 || p.TTFT < best.TTFT {
						best.TTFT = p.TTFT
					}
					_ = bar.Add(1)
				}
				if c.JSON {
					if err := json.NewEncoder(os.Stdout).Encode(best); err != nil {
						return err
					}
					continue
				}
				decode := "-" // the first stream ended before the last began: more --tokens are needed
				if best.Decode > 0 {
					decode = fmt.Sprintf("%.1f", best.Decode)
				}
				_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%s\t%.1f\t%d\t\n", best.Plan, best.Depth, best.Batch, best.Prefill, decode, best.TTFT, best.KVPages)
			}
		}
	}
	_ = bar.Finish()
	return w.Flush()
}

// measure runs batch streams of random prompts at once. The decode rate counts
// the tokens between the last stream's first token and the first stream's last
// one: the time in which all of them decode.
func measure(ctx context.Context, e *runtime.Engine, planName string, depth, batch, tokens int, seed uint64) (benchPoint, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	vocab := e.Model().Vocab
	rnd := rand.New(rand.NewPCG(seed, uint64(depth)))
	type outcome struct {
		at  []time.Time
		err error
	}
	results := make(chan outcome, batch)
	start := time.Now()
	for range batch {
		prompt := make([]int32, depth)
		for i := range prompt {
			prompt[i] = int32(rnd.IntN(vocab))
		}
		events, err := e.Generate(ctx, runtime.Request{Prompt: prompt, Plan: planName, MaxTokens: tokens, IgnoreEOS: true})
		if err != nil {
			return benchPoint{}, err
		}
		go func() {
			var out outcome
			for ev := range events {
				switch {
				case len(ev.Tokens) > 0:
					out.at = append(out.at, time.Now())
				case ev.Kind == runtime.EventFinished && ev.Reason != runtime.ReasonLength:
					out.err = fmt.Errorf("a stream ended with %q: %w", ev.Reason, ev.Err)
				}
			}
			results <- out
		}()
	}
	p := benchPoint{Plan: planName, Depth: depth, Batch: batch}
	var all []outcome
	for range batch {
		out := <-results
		if out.err != nil || len(out.at) == 0 {
			return p, fmt.Errorf("measuring %s at depth %d: %d tokens came: %w", planName, depth, len(out.at), out.err)
		}
		all = append(all, out)
	}
	from, to := all[0].at[0], all[0].at[len(all[0].at)-1]
	for _, out := range all {
		if out.at[0].After(from) {
			from = out.at[0]
		}
		if last := out.at[len(out.at)-1]; last.Before(to) {
			to = last
		}
	}
	n := 0
	for _, out := range all {
		for _, t := range out.at {
			if t.After(from) && !t.After(to) {
				n++
			}
		}
	}
	for _, pl := range e.Plans() {
		if pl.Name == planName {
			p.KVPages = batch * pl.Bind(depth+tokens).Pages(depth+tokens)
		}
	}
	ttft := from.Sub(start).Seconds()
	p.TTFT, p.Prefill = ttft*1e3, float64(batch*depth)/ttft
	if to.After(from) {
		p.Decode = float64(n) / to.Sub(from).Seconds()
	}
	return p, nil
}
