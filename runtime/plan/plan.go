package plan

import (
	"encoding/json"
	"slices"
)

// Span says from which length a rule's span is taken.
type Span string

const (
	// SpanPosition is the native meaning: the span grows with the query's own
	// position, never below what it is at Floor tokens. A cached prefix is
	// exact and the answer does not depend on max_tokens.
	SpanPosition Span = "position"
	// SpanLength is the published meaning: one span for the whole sequence,
	// from its total length.
	SpanLength Span = "length"
)

// Plan assigns one rule to every KV head of a model. A Plan is immutable once
// made and safe for concurrent use.
type Plan struct {
	Name  string
	Model Shape
	Span  Span
	// Floor is the length in tokens below which the span of SpanPosition stops
	// shrinking.
	// It is a multiple of BlockSize; SpanLength does not look at it.
	Floor int
	// Rules are the distinct rules; Heads holds, per layer and KV head, an
	// index into Rules.
	Rules []Rule
	Heads [][]int

	// Densities are those that the plan's maker states, by length in tokens.
	// Density computes the plan's own.
	Densities map[int]float64
	// Search and Quality tell how the plan was found and how well it does. They
	// are JSON objects for people and reports, carried along unread.
	Search, Quality json.RawMessage
}

// Uniform returns the plan that gives every KV head of the model the same rule.
func Uniform(name string, m Shape, r Rule) *Plan {
	p := &Plan{Name: name, Model: m, Span: SpanPosition, Floor: DefaultFloor, Rules: []Rule{r}}
	p.Heads = make([][]int, m.Layers)
	for i := range p.Heads {
		p.Heads[i] = make([]int, m.KVHeads)
	}
	return p
}

// NewDense returns the plan under which every head sees everything. Dense
// attention is not a path of its own: it is this plan.
func NewDense(m Shape) *Plan { return Uniform("dense", m, Dense) }

// Bind returns the layout of a sequence. total is the number of tokens that the
// sequence may reach (prompt and max_tokens); only SpanLength looks at it, after
// rounding it up to its bucket (see [Bucket]).
func (p *Plan) Bind(total int) *Layout {
	l := &Layout{plan: p, floorBlocks: p.Floor / BlockSize}
	for _, layer := range p.Heads {
		l.rules = slices.Grow(l.rules, len(layer))
		for _, i := range layer {
			l.rules = append(l.rules, p.Rules[i])
		}
	}
	if p.Span == SpanLength {
		l.totalBlocks = Bucket(total) / BlockSize
	}
	return l
}

// Dense reports whether every head of the plan sees everything.
func (p *Plan) Dense() bool {
	for _, layer := range p.Heads {
		for _, i := range layer {
			if !p.Rules[i].IsDense() {
				return false
			}
		}
	}
	return true
}

// Density returns the share of the dense model's KV pages that a sequence keeps
// once it has tokens tokens, sink included. It is 1 for tokens <= 0.
func (p *Plan) Density(tokens int) float64 {
	l := p.Bind(tokens)
	if tokens <= 0 || l.Heads() == 0 {
		return 1
	}
	blocks := Blocks(tokens)
	return float64(l.Pages(tokens)) / float64(l.Heads()*blocks)
}

// MaxContext bounds every length, in tokens, that a plan deals with. It is far
// above any model's context and keeps block numbers within 32 bits.
const MaxContext = 1 << 27

// Bucket rounds a total length up to 1k, 1.5k, 2k, 3k, 4k, 6k, ... tokens, so
// that sequences of nearly the same length share spans, graphs and cache keys.
// The largest bucket is MaxContext.
func Bucket(total int) int {
	total = min(total, MaxContext)
	for b := 1024; ; b *= 2 {
		if total <= b {
			return b
		}
		if total <= b+b/2 {
			return b + b/2
		}
	}
}
