package measure

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime"
)

// tinyMeter returns a meter on the smallest synthetic model, with a context of 2000
// tokens; it measures a point once.
func tinyMeter(t *testing.T, o Options) *Meter {
	t.Helper()
	return tinyMeterOf(t, o, 0)
}

// tinyMeterOf is tinyMeter with a KV cache of so many bytes; 0 means the default.
func tinyMeterOf(t *testing.T, o Options, kvBytes int64) *Meter {
	t.Helper()
	o.Repeat, o.Bound = 1, 10e9
	r := o.EngineOptions(runtime.Options{Backend: "cpu", Context: 2000, KVBytes: kvBytes})
	e, err := runtime.Open(t.Context(), "synthetic:tiny", r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	m := New(e, o)
	if err := m.FindBound(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPointsOfSeveralStreamsAreMeasured(t *testing.T) {
	m := tinyMeter(t, Options{
		Plans: []string{"dense", "uniform:25%,floor=64", "mixed:50%"}, Depths: []int{200, 700}, Batches: []int{1, 5}, PromptMix: 0.5, Steps: 20, Rehearse: true,
	})
	points, err := m.Points()
	if err != nil {
		t.Fatal(err)
	}
	if len(points) != 3*2*2 {
		t.Fatalf("%d points", len(points))
	}
	var names []string
	for _, x := range points {
		names = append(names, x.plan.Name)
	}
	if names, want := slices.Compact(names), []string{"dense", "uniform-25-floor-64", "mixed-50"}; !slices.Equal(names, want) {
		t.Fatalf("the plans are %v, want %v", names, want)
	}
	for _, x := range points {
		p, err := m.Measure(t.Context(), x)
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
		page := int64(m.engine.PageBytes())
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
	if s := m.engine.Stats(); s.Running != 0 || s.Waiting != 0 || s.Sessions != 0 {
		t.Errorf("left behind: %+v", s)
	}
}

// The prompts are read once: decoding goes on from what was kept of them.
func TestDecodingReadsNoPromptAgain(t *testing.T) {
	m := tinyMeter(t, Options{Depths: []int{640}, Batches: []int{4}, Steps: 10})
	points, err := m.Points()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Measure(t.Context(), points[0]); err != nil {
		t.Fatal(err)
	}
	// 640 tokens are ten blocks, all kept; the token after them is computed.
	if s := m.engine.Stats(); s.CachedTokens != 4*640 || s.PrefillTokens != 4*641 {
		t.Errorf("%d tokens were computed in prefills, %d kept", s.PrefillTokens, s.CachedTokens)
	}
}

func TestPromptsThatCannotBeMeasuredAreRefused(t *testing.T) {
	// 285 pages of 64 tokens of keys and values, 64 numbers of 2 bytes each. A prompt of 1000
	// tokens has 16 blocks, of 3 layers of 2 heads each: three of them do not quite fit.
	const kvBytes = 285 * 2 * 64 * 64 * 2
	for _, c := range []struct {
		depth, batch int
		plan         string
		want         string
	}{
		{1990, 1, "dense", "do not fit the context of 2000 tokens"},
		{1000, 1, "uniform:25%,span=length", "take prompts of at most"},
		{1000, 3, "dense", "the streams hold 288 pages of KV cache (0.0 GB), and there are 285"},
	} {
		m := tinyMeterOf(t, Options{Plans: []string{c.plan}, Depths: []int{c.depth}, Batches: []int{c.batch}, Steps: 64}, kvBytes)
		if _, err := m.Points(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s after %d tokens: %v, want an error with %q", c.plan, c.depth, err, c.want)
		}
	}
}
