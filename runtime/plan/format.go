package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// Format is the value of the field "format" of the plan files that this package
// reads and writes. docs/plan-format.md describes them.
const Format = "moaserve.plan/1"

// Limits of a plan file. They are far above the models in use (Llama-3 405B has
// 126 layers of 128 query heads) and bound what a hostile file can ask for.
const (
	MaxFileBytes  = 16 << 20
	MaxLayers     = 1024
	MaxQueryHeads = 1024
	MaxHeadDim    = 1024
	MaxRules      = 4096
)

// FormatError says which field of a plan is wrong.
type FormatError struct {
	Field  string // path of the field, as in "rules[3].beta"; empty for the whole file
	Reason string
}

// Error gives the field and the reason.
func (e *FormatError) Error() string {
	if e.Field == "" {
		return "plan file: " + e.Reason
	}
	return fmt.Sprintf("plan file: %s %s", e.Field, e.Reason)
}

func wrong(field, format string, args ...any) error {
	return &FormatError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// file is the JSON of a plan. Fields that change which blocks a head sees are
// pointers or have no valid zero, so that a missing one is noticed.
type file struct {
	Format     string          `json:"format"`
	Name       string          `json:"name"`
	Model      Shape           `json:"model"`
	Block      int             `json:"block"`
	SinkBlocks int             `json:"sink_blocks"`
	Span       Span            `json:"span"`
	Floor      *int            `json:"floor"`
	Rules      []fileRule      `json:"rules"`
	Heads      [][]int         `json:"heads"`
	Density    map[int]float64 `json:"density"`
	Search     json.RawMessage `json:"search"`
	Quality    json.RawMessage `json:"quality"`
}

type fileRule struct {
	Alpha *int     `json:"alpha"`
	Beta  *float64 `json:"beta"`
}

// Decode reads a plan file. An error is a *FormatError that names the field.
// Fields that it does not know are ignored and not kept.
func Decode(data []byte) (*Plan, error) {
	if len(data) > MaxFileBytes {
		return nil, wrong("", "has %d bytes, more than %d", len(data), MaxFileBytes)
	}
	if err := checkFormat(data); err != nil {
		return nil, err
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, jsonError(err)
	}
	if f.Block != BlockSize {
		return nil, wrong("block", "is %d; only blocks of %d tokens are supported", f.Block, BlockSize)
	}
	if f.SinkBlocks != 1 {
		return nil, wrong("sink_blocks", "is %d; only 1 is supported", f.SinkBlocks)
	}
	p := &Plan{Name: f.Name, Model: f.Model, Span: f.Span, Heads: f.Heads}
	if len(f.Density) > 0 {
		p.Densities = f.Density
	}
	if f.Floor != nil {
		p.Floor = *f.Floor
	} else if f.Span == SpanPosition {
		return nil, wrong("floor", "is missing; span %q needs it", f.Span)
	}
	p.Rules = make([]Rule, len(f.Rules))
	for i, r := range f.Rules {
		if r.Alpha == nil || r.Beta == nil {
			return nil, wrong(fmt.Sprintf("rules[%d]", i), "needs both alpha and beta")
		}
		p.Rules[i] = Rule{Alpha: *r.Alpha, Beta: *r.Beta}
	}
	var err error
	if p.Search, err = object("search", f.Search); err != nil {
		return nil, err
	}
	if p.Quality, err = object("quality", f.Quality); err != nil {
		return nil, err
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

// checkFormat looks at the format before anything else, because the fields of
// another format may have other types.
func checkFormat(data []byte) error {
	var head struct {
		Format *string         `json:"format"`
		Alphas json.RawMessage `json:"alphas"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return jsonError(err)
	}
	switch {
	case head.Format == nil && head.Alphas != nil:
		return wrong("format", "is missing; a file of alphas and betas is an upstream plan, which must be imported")
	case head.Format == nil:
		return wrong("format", "is missing")
	case *head.Format != Format:
		return wrong("format", "is %q; only %q is supported", *head.Format, Format)
	}
	return nil
}

func jsonError(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return wrong(e.Field, "has a value of the wrong type (%s)", e.Value)
	}
	return wrong("", "is not JSON: %v", err)
}

// Validate returns a *FormatError when the plan breaks a rule of the format:
// a size out of bounds, a rule that does not exist, beta outside 0 to 1.
func (p *Plan) Validate() error {
	if err := p.validateModel(); err != nil {
		return err
	}
	if err := p.validateHeads(); err != nil {
		return err
	}
	return p.validateRun()
}

// validateRun checks what does not depend on the model.
func (p *Plan) validateRun() error {
	if p.Name != "" && !validName.MatchString(p.Name) {
		return wrong("name", "is %.80q: up to 64 letters, digits, '.', '_' and '-', the first a letter or a digit", p.Name)
	}
	if p.Name == denseName && !p.Dense() {
		return wrong("name", "is %q, which is kept for the plan without sparsity", denseName)
	}
	switch p.Span {
	case SpanPosition, SpanLength:
	default:
		return wrong("span", "is %.20q: %q or %q", string(p.Span), SpanPosition, SpanLength)
	}
	if p.Floor < 0 || p.Floor > MaxContext || p.Floor%BlockSize != 0 {
		return wrong("floor", "is %d: a multiple of %d from 0 to %d", p.Floor, BlockSize, MaxContext)
	}
	for tokens, d := range p.Densities {
		if tokens < 1 || tokens > MaxContext || !(d > 0 && d <= 1) {
			return wrong("density", "holds %d: %v; lengths are 1 to %d, densities above 0 and up to 1", tokens, d, MaxContext)
		}
	}
	return nil
}

// validName keeps names usable in NAME:PLAN, in file names and in store keys.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

const denseName = "dense"

func (p *Plan) validateModel() error {
	m := &p.Model
	for _, f := range []struct {
		name          string
		value, lo, hi int
	}{
		{"model.layers", m.Layers, 1, MaxLayers},
		{"model.query_heads", m.QueryHeads, 1, MaxQueryHeads},
		{"model.kv_heads", m.KVHeads, 1, m.QueryHeads},
		{"model.head_dim", m.HeadDim, 1, MaxHeadDim},
		{"model.context", m.Context, 0, MaxContext},
	} {
		if f.value < f.lo || f.value > f.hi {
			return wrong(f.name, "is %d: %d to %d", f.value, f.lo, f.hi)
		}
	}
	if m.QueryHeads%m.KVHeads != 0 {
		return wrong("model.query_heads", "is %d, not a multiple of kv_heads, %d", m.QueryHeads, m.KVHeads)
	}
	if m.WeightsSHA256 != "" && !validSHA256.MatchString(m.WeightsSHA256) {
		return wrong("model.weights_sha256", "is %.80q: 64 hexadecimal digits", m.WeightsSHA256)
	}
	return nil
}

var validSHA256 = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

func (p *Plan) validateHeads() error {
	if n := len(p.Rules); n < 1 || n > MaxRules {
		return wrong("rules", "has %d entries: 1 to %d", n, MaxRules)
	}
	for i, r := range p.Rules {
		if r.Alpha < -MaxContext || r.Alpha > MaxContext {
			return wrong(fmt.Sprintf("rules[%d].alpha", i), "is %d: %d to %d", r.Alpha, -MaxContext, MaxContext)
		}
		if !(r.Beta >= 0 && r.Beta <= 1) {
			return wrong(fmt.Sprintf("rules[%d].beta", i), "is %v: 0 to 1", r.Beta)
		}
	}
	if len(p.Heads) != p.Model.Layers {
		return wrong("heads", "has %d layers, model.layers says %d", len(p.Heads), p.Model.Layers)
	}
	for i, layer := range p.Heads {
		if len(layer) != p.Model.KVHeads {
			return wrong(fmt.Sprintf("heads[%d]", i), "has %d KV heads, model.kv_heads says %d", len(layer), p.Model.KVHeads)
		}
		for j, r := range layer {
			if r < 0 || r >= len(p.Rules) {
				return wrong(fmt.Sprintf("heads[%d][%d]", i, j), "is %d, but there are rules 0 to %d", r, len(p.Rules)-1)
			}
		}
	}
	return nil
}
