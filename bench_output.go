package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/moaserve/moaserve/runtime"
)

// benchPoint is one row of the result.
type benchPoint struct {
	Model     string  `json:"model"`
	Backend   string  `json:"backend"`
	Plan      string  `json:"plan"`
	Density   float64 `json:"density"` // at the depth
	Depth     int     `json:"depth_tokens"`
	Batch     int     `json:"batch"` // streams
	PromptMix float64 `json:"prompt_mix"`

	PromptTokens           int     `json:"prompt_tokens"`
	PrefillTokensPerSecond float64 `json:"prefill_tok_per_s"`
	TTFTMedian             float64 `json:"ttft_p50_ms"`
	TTFTMax                float64 `json:"ttft_max_ms"`

	Steps                 int     `json:"steps"`
	DecodeTokensPerSecond float64 `json:"decode_tok_per_s,omitempty"`
	StepTime              float64 `json:"step_ms,omitempty"`
	GapMedian             float64 `json:"gap_p50_ms,omitempty"`
	GapP95                float64 `json:"gap_p95_ms,omitempty"`

	WeightBytesPerStep int64    `json:"weight_bytes_per_step,omitempty"`
	KVBytesPerStep     int64    `json:"kv_bytes_per_step,omitempty"`
	Bandwidth          float64  `json:"read_gb_per_s,omitempty"`
	Bound              float64  `json:"bound_gb_per_s,omitempty"`
	BoundSource        string   `json:"bound_source,omitempty"` // "given" or "measured"
	ShareOfBound       float64  `json:"share_of_bound,omitempty"`
	DeviceIdle         *float64 `json:"device_idle_share,omitempty"`
	KVPages            int      `json:"kv_pages,omitempty"` // visible in the last step, all streams
}

// Where a bound comes from.
const (
	boundGiven    = "given"
	boundMeasured = "measured"
)

// benchOutput prints points as a table or as JSON lines.
type benchOutput struct {
	w           io.Writer
	json        *json.Encoder // nil for a table
	table       *tabwriter.Writer
	boundSource string
}

func newBenchOutput(w io.Writer, asJSON bool) *benchOutput {
	o := &benchOutput{w: w}
	if asJSON {
		o.json = json.NewEncoder(w)
	} else {
		o.table = tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	}
	return o
}

// begin prints what is above the points.
func (o *benchOutput) begin(e *runtime.Engine, boundSource string) {
	o.boundSource = boundSource
	if o.json != nil {
		return
	}
	_, _ = fmt.Fprintf(o.w, "%s, %s\n", e.Name(), e.Describe())
	_, _ = fmt.Fprintln(o.table, "plan\tdensity\tprompt\tstreams\tprompt tok/s\tfirst token ms\tlast ms\tdecode tok/s\tstep ms\tgap p50\tp95\tweights GB\tKV GB\tGB/s\tof bound\tidle\t")
}

// point prints a point; those of a table come at the end.
func (o *benchOutput) point(p benchPoint) error {
	if o.json != nil {
		return o.json.Encode(p)
	}
	_, _ = fmt.Fprintf(o.table, "%s\t%.2f\t%d\t%d\t%.0f\t%.1f\t%.1f\t", p.Plan, p.Density, p.Depth, p.Batch, p.PrefillTokensPerSecond, p.TTFTMedian, p.TTFTMax)
	if p.Steps == 0 {
		_, err := fmt.Fprintln(o.table, "-\t-\t-\t-\t-\t-\t-\t-\t-\t")
		return err
	}
	_, err := fmt.Fprintf(o.table, "%.1f\t%.2f\t%.2f\t%.2f\t%.3f\t%.3f\t%.0f\t%s\t%s\t\n",
		p.DecodeTokensPerSecond, p.StepTime, p.GapMedian, p.GapP95, float64(p.WeightBytesPerStep)/1e9, float64(p.KVBytesPerStep)/1e9, p.Bandwidth,
		percentOr(p.ShareOfBound, p.BoundSource != ""), percentOrDash(p.DeviceIdle))
	return err
}

// end prints the table.
func (o *benchOutput) end() error {
	if o.json != nil {
		return nil
	}
	return o.table.Flush()
}

func percentOr(share float64, known bool) string {
	if !known {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*share)
}

func percentOrDash(share *float64) string {
	if share == nil {
		return "-"
	}
	return percentOr(*share, true)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile returns the value nearest to that share of the way from the least to the
// greatest, in order; 0 when there are none.
func percentile(values []time.Duration, share float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	i := int(share*float64(len(sorted)-1) + 0.5)
	return sorted[i]
}

func sum(values []int) int {
	total := 0
	for _, v := range values {
		total += v
	}
	return total
}
