package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// GapResult is what a stream and a long prompt do to each other. The JSON names tell the
// units, and scripts read them.
type GapResult struct {
	Model              string `json:"model"`
	Where              string `json:"where"` // the backend, or the server's address
	Plan               string `json:"plan,omitempty"`
	StreamPromptTokens int    `json:"stream_prompt_tokens"`
	LongPromptTokens   int    `json:"long_prompt_tokens"`
	Runs               int    `json:"runs"`

	GapsAlone      int     `json:"gaps_alone"` // how many were measured
	GapAloneMedian float64 `json:"gap_alone_p50_ms"`
	GapAloneP95    float64 `json:"gap_alone_p95_ms"`

	GapsBeside      int     `json:"gaps_beside"`
	GapBesideMedian float64 `json:"gap_beside_p50_ms"`
	GapBesideP95    float64 `json:"gap_beside_p95_ms"`
	GapBesideMax    float64 `json:"gap_beside_max_ms"`

	PrefillAlone  float64 `json:"prefill_alone_ms"` // medians, from the request to the first token
	PrefillBeside float64 `json:"prefill_beside_ms"`

	GapRatio     float64 `json:"gap_p95_ratio"` // beside over alone
	PrefillRatio float64 `json:"prefill_ratio"`
}

// Write writes a table, or a JSON line.
func (p GapResult) Write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(p)
	}
	_, _ = fmt.Fprintf(w, "%s, %s", p.Model, p.Where)
	if p.Plan != "" {
		_, _ = fmt.Fprintf(w, ", plan %s", p.Plan)
	}
	_, _ = fmt.Fprintf(w, "\na stream after %d tokens; a prompt of %d tokens, %d times\n", p.StreamPromptTokens, p.LongPromptTokens, p.Runs)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "\tgaps\tgap p50 ms\tp95 ms\tlongest ms\tprompt ms\t")
	_, _ = fmt.Fprintf(t, "alone\t%d\t%.2f\t%.2f\t-\t%.1f\t\n", p.GapsAlone, p.GapAloneMedian, p.GapAloneP95, p.PrefillAlone)
	_, _ = fmt.Fprintf(t, "beside each other\t%d\t%.2f\t%.2f\t%.2f\t%.1f\t\n", p.GapsBeside, p.GapBesideMedian, p.GapBesideP95, p.GapBesideMax, p.PrefillBeside)
	_, _ = fmt.Fprintf(t, "ratio\t\t%.2f\t%.2f\t\t%.2f\t\n", p.GapBesideMedian/p.GapAloneMedian, p.GapRatio, p.PrefillRatio)
	return t.Flush()
}
