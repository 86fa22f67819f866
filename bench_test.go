package main

import (
	"bytes"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestPromptLengthsSpreadAroundTheDepth(t *testing.T) {
	for _, c := range []struct {
		depth, batch int
		mix          float64
		least, most  int
	}{
		{8192, 1, 0, 8192, 8192},
		{8192, 1, 0.5, 8192, 8192},
		{1000, 4, 0, 1000, 1000},
		{1000, 10, 0.5, 550, 1450}, // the middles of ten parts of 500 to 1500
		{1, 3, 0.9, 1, 2},
	} {
		lengths := promptLengths(c.depth, c.batch, c.mix)
		if len(lengths) != c.batch || slices.Min(lengths) != c.least || slices.Max(lengths) != c.most {
			t.Errorf("%+v: %v", c, lengths)
		}
		if off := sum(lengths) - c.depth*c.batch; off < -c.batch || off > c.batch {
			t.Errorf("%+v: %d tokens in all", c, sum(lengths))
		}
		if again := promptLengths(c.depth, c.batch, c.mix); !slices.Equal(lengths, again) {
			t.Errorf("%+v: %v, then %v", c, lengths, again)
		}
	}
}

// Page by page: a page is read when its block is the first, or in the span of the block
// of the token that is computed.
func TestKVPagesAreThoseThatEachStepSees(t *testing.T) {
	shape := plan.Shape{Layers: 3, QueryHeads: 4, KVHeads: 2, HeadDim: 64, Context: 4096}
	for _, spec := range []string{"dense", "uniform:50%", "uniform:12%,floor=128", "uniform:25%,span=length", "mixed:40%"} {
		p, err := plan.Parse(spec, shape)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []decodedStream{
			{prompt: 1, from: 1, to: 2},
			{prompt: 63, from: 1, to: 4},
			{prompt: 640, from: 5, to: 140},
			{prompt: 2000, from: 0, to: 0},
			{prompt: 2047, from: 1, to: 70},
		} {
			s.layout = p.Bind(s.prompt + 300)
			want := int64(0)
			for token := s.from; token < s.to; token++ {
				// The step feeds the token before it, whose position that is.
				q := (s.prompt + token - 1) / plan.BlockSize
				for h := range s.layout.Heads() {
					for block := range q + 1 {
						if block == 0 || block >= s.layout.Start(h, q) {
							want++
						}
					}
				}
			}
			if got := s.kvPages(); got != want {
				t.Errorf("%s, tokens %d to %d after %d: %d pages, want %d", spec, s.from, s.to, s.prompt, got, want)
			}
		}
	}
}

func TestOnlyStepsOfAllStreamsCount(t *testing.T) {
	start := time.Now()
	busy := time.Duration(0)
	c := newCollector(2, 3, func() (time.Duration, bool) { return busy, true })
	step := 0
	token := func(streams ...int) {
		step++
		busy += 9 * time.Millisecond
		for _, s := range streams {
			c.arrive(tick{stream: s, at: start.Add(time.Duration(step) * 10 * time.Millisecond)})
		}
	}
	for range 5 {
		token(0) // alone
	}
	for range 1 + settleSteps { // the first token of the other, and what does not count
		token(0, 1)
	}
	if !c.counting {
		t.Fatal("nothing is counted yet")
	}
	for range 3 {
		token(0, 1)
	}
	if !c.done {
		t.Fatal("three steps were not enough")
	}
	token(0, 1)
	if got := c.count[0] - c.from[0]; got != 3 || c.count[1]-c.from[1] != 3 || c.from[0] != 5+1+settleSteps || c.from[1] != 1+settleSteps {
		t.Errorf("counted from %v to %v", c.from, c.count)
	}
	if took := c.end.Sub(c.begin); took != 30*time.Millisecond {
		t.Errorf("three steps took %v", took)
	}
	if got := c.busyEnd - c.busyBegin; got != 27*time.Millisecond {
		t.Errorf("busy for %v", got)
	}
	if len(c.gaps) != 6 || slices.Max(c.gaps) != 10*time.Millisecond {
		t.Errorf("the gaps are %v", c.gaps)
	}
}

func TestPercentiles(t *testing.T) {
	values := []time.Duration{5, 1, 4, 2, 3}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.95: 5, 1: 5, 0.24: 2} {
		if got := percentile(values, share); got != want {
			t.Errorf("percentile %v is %d, want %d", share, got, want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("of nothing it is %d", got)
	}
}

// tinyBench returns a bench on the smallest synthetic model.
func tinyBench(t *testing.T, args ...string) (*bench, []string) {
	t.Helper()
	c := parseBench(t, append([]string{"--model", "synthetic:tiny", "--backend", "cpu", "--bandwidth", "10"}, args...)...)
	e, names, err := c.open(t.Context(), runtime.Options{Backend: "cpu", Context: 2000, DecodeStretch: math.MaxInt32, KVSequences: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{cmd: c, engine: e, out: newBenchOutput(&bytes.Buffer{}, true), warm: make(map[[2]int]bool)}
	b.out.begin(e, b.findBound())
	return b, names
}

func parseBench(t *testing.T, args ...string) *benchCmd {
	t.Helper()
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"bench"}, args...)); err != nil {
		t.Fatal(err)
	}
	return &c.Bench
}

func TestPointsOfSeveralStreamsAreMeasured(t *testing.T) {
	b, names := tinyBench(t, "--plans", `dense,uniform:25%\,floor=64,mixed:50%`, "--depths", "200,700", "--batches", "1,5", "--steps", "20", "--prompt-mix", "0.5")
	if want := []string{"dense", "uniform-25-floor-64", "mixed-50"}; !slices.Equal(names, want) {
		t.Fatalf("the plans are %v, want %v", names, want)
	}
	points, err := b.points(names)
	if err != nil {
		t.Fatal(err)
	}
	if len(points) != 3*2*2 {
		t.Fatalf("%d points", len(points))
	}
	for _, x := range points {
		p, err := b.median(t.Context(), x)
		if err != nil {
			t.Fatalf("%v: %v", x, err)
		}
		if p.PromptTokens != sum(x.lengths) || p.Batch != len(x.lengths) || p.Steps != 20 || p.PrefillTokensPerSecond <= 0 || p.TTFTMax < p.TTFTMedian {
			t.Errorf("%v: %+v", x, p)
		}
		// All streams end within a block or two of the plan's own figure.
		least, most := 0, 0
		for _, n := range x.lengths {
			least += x.plan.Bind(n + 20).Pages(n + 20)
			most += x.plan.Bind(n + 200).Pages(n + 200)
		}
		page := int64(b.engine.PageBytes())
		if p.KVPages < least || p.KVPages > most || p.KVBytesPerStep < page*int64(least)*9/10 || p.KVBytesPerStep > page*int64(most) {
			t.Errorf("%v: %d pages, %d bytes a step; want %d to %d pages of %d bytes", x, p.KVPages, p.KVBytesPerStep, least, most, page)
		}
		read := float64(p.WeightBytesPerStep+p.KVBytesPerStep) / (p.StepTime / 1e3)
		if math.Abs(p.Bandwidth*1e9/read-1) > 1e-6 || math.Abs(p.ShareOfBound-p.Bandwidth/10) > 1e-9 || p.BoundSource != boundGiven {
			t.Errorf("%v: %v GB/s, %v of the bound, %v bytes a second", x, p.Bandwidth, p.ShareOfBound, read)
		}
		if tokens := float64(p.Batch) / (p.StepTime / 1e3); math.Abs(p.DecodeTokensPerSecond/tokens-1) > 1e-6 {
			t.Errorf("%v: %v tokens a second in steps of %v ms", x, p.DecodeTokensPerSecond, p.StepTime)
		}
	}
	// Nothing is left running, no session remembered.
	if s := b.engine.Stats(); s.Running != 0 || s.Waiting != 0 || s.Sessions != 0 {
		t.Errorf("left behind: %+v", s)
	}
}

// The prompts are read once: decoding goes on from what was kept of them.
func TestDecodingReadsNoPromptAgain(t *testing.T) {
	b, _ := tinyBench(t, "--depths", "640", "--batches", "4", "--steps", "10", "--no-rehearse")
	points, err := b.points([]string{"dense"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.median(t.Context(), points[0]); err != nil {
		t.Fatal(err)
	}
	// 640 tokens are ten blocks, all kept; the token after them is computed.
	if s := b.engine.Stats(); s.CachedTokens != 4*640 || s.PrefillTokens != 4*641 {
		t.Errorf("%d tokens were computed in prefills, %d kept", s.PrefillTokens, s.CachedTokens)
	}
}

func TestPromptsThatCannotBeMeasuredAreRefused(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--depths", "1990"}, "do not fit the context of 2000 tokens"},
		{[]string{"--depths", "1000", "--plans", `uniform:25%\,span=length`}, "take prompts of at most"},
	} {
		b, names := tinyBench(t, c.args...)
		if _, err := b.points(names); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want an error with %q", c.args, err, c.want)
		}
	}
}

// Scripts read these names; each tells its unit.
func TestJSONLinesTellUnits(t *testing.T) {
	idle := 0.01
	var out bytes.Buffer
	o := newBenchOutput(&out, true)
	if err := o.point(benchPoint{Model: "m", Steps: 1, DecodeTokensPerSecond: 1, StepTime: 1, GapMedian: 1, GapP95: 1, WeightBytesPerStep: 1,
		KVBytesPerStep: 1, Bandwidth: 1, Bound: 1, BoundSource: boundMeasured, ShareOfBound: 1, DeviceIdle: &idle, KVPages: 1}); err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"model", "backend", "plan", "density", "depth_tokens", "batch", "prompt_mix", "prompt_tokens", "prefill_tok_per_s", "ttft_p50_ms", "ttft_max_ms",
		"steps", "decode_tok_per_s", "step_ms", "gap_p50_ms", "gap_p95_ms", "weight_bytes_per_step", "kv_bytes_per_step", "read_gb_per_s",
		"bound_gb_per_s", "bound_source", "share_of_bound", "device_idle_share", "kv_pages",
	} {
		if _, ok := line[name]; !ok {
			t.Errorf("there is no %s in %s", name, out.String())
		}
	}
}

func TestTablesLeaveOutWhatIsNotKnown(t *testing.T) {
	b, _ := tinyBench(t)
	var out bytes.Buffer
	o := newBenchOutput(&out, false)
	o.begin(b.engine, "")
	for _, p := range []benchPoint{{Plan: "dense", Depth: 100, Batch: 1}, {Plan: "moa", Depth: 100, Batch: 1, Steps: 5, Bandwidth: 7}} {
		if err := o.point(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.end(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "synthetic-tiny, cpu") {
		t.Fatalf("the table is\n%s", out.String())
	}
	if got := strings.Count(lines[2], " -"); got != 9 {
		t.Errorf("%d dashes without decode: %s", got, lines[2])
	}
	if got := strings.Count(lines[3], " -"); got != 2 {
		t.Errorf("%d dashes without a bound: %s", got, lines[3])
	}
}

func TestModelsAreFilesFoldersOrSynthetic(t *testing.T) {
	if got := parseBench(t, "--model", "synthetic:tiny").Model; got != "synthetic:tiny" {
		t.Errorf("the synthetic model became %q", got)
	}
	if got := parseBench(t, "--model", "m.gguf").Model; !filepath.IsAbs(got) || filepath.Base(got) != "m.gguf" {
		t.Errorf("the file became %q", got)
	}
	c := parseBench(t, "--model", "synthetic:nonsense")
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "synthetic:llama-3-8b") || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestBenchRefusesWrongFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "--model"},
		{[]string{"--model", "x", "--url", "http://x"}, "--url needs --gap"},
		{[]string{"--model", "x", "--prompt-mix", "1"}, "--prompt-mix"},
		{[]string{"--model", "x", "--batches", "0"}, "--batches"},
		{[]string{"--model", "x", "--repeat", "0"}, "--repeat"},
	} {
		var top cli
		parser, err := newParser(&top)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"bench"}, c.args...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want an error with %q", c.args, err, c.want)
		}
	}
}
