package measure

// Result is what was measured of a point: one row of the table, one JSON line. The JSON
// names tell the units, and scripts read them.
type Result struct {
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
