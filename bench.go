package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/moaserve/moaserve/bench/measure"
	"github.com/moaserve/moaserve/runtime"
)

// benchCmd measures the engine: scheduling, sampling and detokenisation are
// part of every figure.
type benchCmd struct {
	modelFlags
	Plans       []string `help:"Plans to measure: dense, uniform:50%, mixed:50% (spans spread around half the context, as a search gives), a plan file or the name of a known plan; a comma within one is written \\,. By default dense, and the model's default plan." placeholder:"PLAN,..."`
	Depths      []int    `help:"Lengths of the prompts, in tokens." default:"16,512,2048,7000"`
	Batches     []int    `help:"Streams at a time." default:"1"`
	PromptMix   float64  `help:"Mix the lengths of a batch's prompts: 0.5 spreads them evenly from half the depth to one and a half of it." default:"0" placeholder:"SHARE"`
	Steps       int      `help:"Decode steps to measure, all streams taking part; 0 measures prompts only." default:"64"`
	Repeat      int      `help:"Runs of each point; the one of median decode speed is printed." default:"1"`
	Rehearse    bool     `help:"Read each kind of prompts once before they are measured, so that what a device tunes for new shapes does not count." default:"true" negatable:""`
	Temperature float32  `help:"Temperature of the sampling; 0 takes the likeliest token." default:"0"`
	Bandwidth   float64  `help:"Bytes a second, in GB/s, that the figures are held against; 0 measures a plain read of the device's memory." default:"0" placeholder:"GB/s"`
	JSON        bool     `help:"Print JSON lines instead of a table; the names of the fields tell their units."`

	Gap           bool    `help:"Measure instead how a long prompt and a stream that decodes disturb each other: the gaps between the stream's tokens alone and beside it, the prompt's time alone and beside the stream. The stream's prompt has the first depth, the plan is the first."`
	GapPrompt     int     `help:"Length of the long prompt, in tokens." default:"8192" placeholder:"TOKENS"`
	GapTokens     int     `help:"Longest answer of the stream." default:"2048" placeholder:"TOKENS"`
	DecodeStretch float64 `help:"As for serve: how many times as long a step may take beside long prompts." default:"2.5"`
	URL           string  `help:"With --gap: measure a running server, this or another OpenAI-compatible one, by streamed completions of random words over HTTP, instead of a model in this process." placeholder:"URL"`
	APIKey        string  `help:"Key for --url." placeholder:"KEY"`
}

// Help is printed by bench --help.
func (*benchCmd) Help() string {
	return `The prompts are random tokens. A point, that is a plan, a depth and a number of streams, is measured in two parts.

First all prompts are read, with nothing else running: prompt tok/s counts all their tokens from the first request to the last first token; "first token" is the time from a stream's request to its first token, which includes waiting for the others: of the median stream and of the last one.

Then all streams decode. After some steps of all of them, which do not count, the steps that do are timed until every stream has made its tokens: decode tok/s counts the tokens of all streams, the gaps are those between a stream's tokens.

A decode step reads the weights once, a row of the embedding for each stream, and of each stream the KV pages that its plan makes visible. Those bytes are counted exactly, page by page; a page counts whole. Divided by the time they are the bandwidth reached, which cannot exceed the bound unless caches hold the most of them. What the arithmetic of the step, the launches, the sampling and the host take beside it shows as the distance from 100 %. On the CPU, weights count as the model file stores them.

  moaserve bench --model synthetic:llama-3-8b --backend cuda --plans dense,mixed:50% --depths 8192 --batches 1,32 --step-tokens 8192
  moaserve bench --model synthetic:vicuna-7b --backend cuda --plans dense,plan.json --depths 3900 --batches 30
  moaserve bench --model synthetic:llama-3-8b --backend cuda --depths 131000 --context 131072 --steps 16
  moaserve bench --gap --url http://127.0.0.1:8080 --depths 512 --gap-prompt 8192`
}

// Validate refuses what cannot be measured.
func (c *benchCmd) Validate() error {
	switch {
	case len(c.Depths) == 0 || slices.Min(c.Depths) < 1 || len(c.Batches) == 0 || slices.Min(c.Batches) < 1:
		return errors.New("--depths and --batches must be positive")
	case !(c.PromptMix >= 0 && c.PromptMix < 1):
		return errors.New("--prompt-mix must be at least 0 and less than 1")
	case c.Steps < 0 || c.Repeat < 1 || c.GapPrompt < 1 || c.GapTokens < 1:
		return errors.New("--steps, --repeat, --gap-prompt and --gap-tokens must not be less than 0, 1, 1 and 1")
	case c.URL != "" && !c.Gap:
		return errors.New("--url needs --gap: other figures are measured in this process")
	case c.URL == "":
		return c.modelFlags.Validate()
	}
	return nil
}

// Run measures every combination of plan, depth and batch, or the gaps.
func (c *benchCmd) Run(ctx context.Context) error {
	if c.URL != "" {
		r, err := measure.ServerGaps(ctx, c.URL, c.APIKey, c.gapOptions())
		if err != nil {
			return err
		}
		return r.Write(os.Stdout, c.JSON)
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	if c.Gap {
		return c.runGaps(ctx, o)
	}
	return c.runPoints(ctx, o)
}

// runPoints measures every combination of plan, depth and batch.
func (c *benchCmd) runPoints(ctx context.Context, o runtime.Options) error {
	what := c.pointOptions()
	e, err := runtime.Open(ctx, c.Model, what.EngineOptions(o))
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	m := measure.New(e, what)
	points, err := m.Points()
	if err != nil {
		return err
	}
	if err := m.FindBound(); err != nil {
		fmt.Fprintf(os.Stderr, "moaserve: no bound: %v\n", err)
	}
	out := measure.NewOutput(os.Stdout, c.JSON)
	out.Begin(e)
	bar := progressbar.NewOptions(len(points), progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("measuring"),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetVisibility(!c.JSON && term.IsTerminal(int(os.Stderr.Fd()))))
	for _, x := range points {
		r, err := m.Measure(ctx, x)
		if err == nil {
			err = out.Point(r)
		}
		if err != nil { // what was measured is not lost
			return errors.Join(fmt.Errorf("%v: %w", x, err), out.End())
		}
		_ = bar.Add(1)
	}
	_ = bar.Finish()
	return out.End()
}

// runGaps measures what a long prompt and a stream in this process do to each other.
func (c *benchCmd) runGaps(ctx context.Context, o runtime.Options) error {
	what := c.gapOptions()
	o.DecodeStretch = c.DecodeStretch
	e, err := runtime.Open(ctx, c.Model, what.EngineOptions(o))
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	r, err := measure.EngineGaps(ctx, e, what)
	if err != nil {
		return err
	}
	return r.Write(os.Stdout, c.JSON)
}

// pointOptions returns what the flags say of points.
func (c *benchCmd) pointOptions() measure.Options {
	return measure.Options{
		Plans: c.Plans, Depths: c.Depths, Batches: c.Batches, PromptMix: c.PromptMix, Steps: c.Steps, Repeat: c.Repeat,
		Rehearse: c.Rehearse, Temperature: c.Temperature, Bound: c.Bandwidth * 1e9,
	}
}

// gapOptions returns what the flags say of gaps.
func (c *benchCmd) gapOptions() measure.GapOptions {
	return measure.GapOptions{
		StreamPrompt: c.Depths[0], LongPrompt: c.GapPrompt, Answer: c.GapTokens, Gaps: max(c.Steps, 1), Runs: c.Repeat,
		Rehearse: c.Rehearse, Plans: c.Plans, Temperature: c.Temperature, Seed: rand.Uint64(),
	}
}
