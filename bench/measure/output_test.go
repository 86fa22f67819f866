package measure

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// Scripts read these names; each tells its unit.
func TestJSONLinesTellUnits(t *testing.T) {
	idle := 0.01
	var out bytes.Buffer
	o := NewOutput(&out, true)
	if err := o.Point(Result{Model: "m", Steps: 1, DecodeTokensPerSecond: 1, StepTime: 1, GapMedian: 1, GapP95: 1, WeightBytesPerStep: 1,
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
	m := tinyMeter(t, Options{Depths: []int{100}, Batches: []int{1}})
	var out bytes.Buffer
	o := NewOutput(&out, false)
	o.Begin(m.engine)
	for _, p := range []Result{{Plan: "dense", Depth: 100, Batch: 1}, {Plan: "moa", Depth: 100, Batch: 1, Steps: 5, Bandwidth: 7}} {
		if err := o.Point(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.End(); err != nil {
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
