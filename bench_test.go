package main

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moaserve/moaserve/bench/measure"
	"github.com/moaserve/moaserve/gateway"
	"github.com/moaserve/moaserve/runtime"
)

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

func TestBenchFlagsSayWhatIsMeasured(t *testing.T) {
	c := parseBench(t, "--model", "synthetic:tiny", "--plans", `dense,uniform:25%\,floor=64`, "--depths", "200,700", "--batches", "1,5", "--prompt-mix", "0.5",
		"--steps", "20", "--repeat", "3", "--no-rehearse", "--temperature", "0.5", "--bandwidth", "10", "--gap-prompt", "600", "--gap-tokens", "900")
	plans := []string{"dense", "uniform:25%,floor=64"}
	points := measure.Options{
		Plans: plans, Depths: []int{200, 700}, Batches: []int{1, 5}, PromptMix: 0.5, Steps: 20, Repeat: 3, Temperature: 0.5, Bound: 10e9,
	}
	if got := c.pointOptions(); !reflect.DeepEqual(got, points) {
		t.Errorf("the points are %+v, want %+v", got, points)
	}
	got := c.gapOptions()
	gaps := measure.GapOptions{StreamPrompt: 200, LongPrompt: 600, Answer: 900, Gaps: 20, Runs: 3, Plans: plans, Temperature: 0.5, Seed: got.Seed}
	if !reflect.DeepEqual(got, gaps) {
		t.Errorf("the gaps are %+v, want %+v", got, gaps)
	}
	if again := c.gapOptions(); again.Seed == got.Seed {
		t.Error("a second measurement has the prompts of the first")
	}
}

func TestGapsAreMeasuredInProcessAndOverHTTP(t *testing.T) {
	e, address := serveModel(t, "synthetic:tiny", runtime.Options{Backend: "cpu"}, gateway.Options{})
	o := measure.GapOptions{StreamPrompt: 100, LongPrompt: 600, Answer: 3000, Gaps: 30, Runs: 2, Rehearse: true}
	for name, run := range map[string]func() (measure.GapResult, error){
		"engine": func() (measure.GapResult, error) { return measure.EngineGaps(t.Context(), e, o) },
		"server": func() (measure.GapResult, error) { return measure.ServerGaps(t.Context(), "http://"+address, "", o) },
	} {
		t.Run(name, func(t *testing.T) {
			r, err := run()
			if err != nil {
				t.Fatal(err)
			}
			// Text arrives in whole characters, so that a few tokens make no chunk of their own.
			if r.GapsAlone < 2*20 || r.GapsBeside == 0 || r.PrefillAlone <= 0 || r.PrefillBeside <= 0 || r.GapBesideMax < r.GapBesideP95 {
				t.Errorf("%+v", r)
			}
			if r.Model != e.Name() || r.StreamPromptTokens != 100 || r.LongPromptTokens != 600 || r.Runs != 2 {
				t.Errorf("the figures are of %+v", r)
			}
			var out bytes.Buffer
			if err := r.Write(&out, false); err != nil || !strings.Contains(out.String(), "beside each other") {
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
