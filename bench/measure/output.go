package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/moaserve/moaserve/runtime"
)

// Output prints results as a table or as JSON lines.
type Output struct {
	w     io.Writer
	json  *json.Encoder // nil for a table
	table *tabwriter.Writer
}

// NewOutput returns an output that writes to w.
func NewOutput(w io.Writer, asJSON bool) *Output {
	o := &Output{w: w}
	if asJSON {
		o.json = json.NewEncoder(w)
	} else {
		o.table = tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	}
	return o
}

// Begin prints what is above the results: which engine they are of.
func (o *Output) Begin(e *runtime.Engine) {
	if o.json != nil {
		return
	}
	_, _ = fmt.Fprintf(o.w, "%s, %s\n", e.Name(), e.Describe())
	_, _ = fmt.Fprintln(o.table, "plan\tdensity\tprompt\tstreams\tprompt tok/s\tfirst token ms\tlast ms\tdecode tok/s\tstep ms\tgap p50\tp95\tweights GB\tKV GB\tGB/s\tof bound\tidle\t")
}

// Point prints the result of a point; those of a table come at the end.
func (o *Output) Point(p Result) error {
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

// End prints the table.
func (o *Output) End() error {
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
