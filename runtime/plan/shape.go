package plan

import (
	"fmt"
	"strings"
)

// Shape is the part of a model that a plan must fit.
type Shape struct {
	Name          string `json:"name,omitempty"`
	Architecture  string `json:"architecture,omitempty"`
	Layers        int    `json:"layers"`
	QueryHeads    int    `json:"query_heads"`
	KVHeads       int    `json:"kv_heads"`
	HeadDim       int    `json:"head_dim"`
	Context       int    `json:"context,omitempty"`        // in tokens; 0 when unknown
	WeightsSHA256 string `json:"weights_sha256,omitempty"` // hexadecimal; empty when unknown
}

// Difference is a field in which a plan and a model disagree.
type Difference struct {
	Field       string // as the plan file names it
	Plan, Model string
}

// MismatchError refuses a plan that was made for another model.
type MismatchError struct {
	Differences []Difference
}

// Error names every field that differs and both its values.
func (e *MismatchError) Error() string {
	var b strings.Builder
	b.WriteString("the plan is for another model: ")
	for i, d := range e.Differences {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s is %s in the plan and %s in the model", d.Field, d.Plan, d.Model)
	}
	return b.String()
}

// Check returns a *MismatchError when the plan does not fit the model: another
// number of layers, query heads or KV heads, another head dimension, or, when
// both state a hash, other weights. Names, architecture and context do not
// count: they are for people, and a plan holds at every length.
func (p *Plan) Check(m Shape) error {
	var e MismatchError
	number := func(field string, plan, model int) {
		if plan != model {
			e.Differences = append(e.Differences, Difference{field, fmt.Sprint(plan), fmt.Sprint(model)})
		}
	}
	number("layers", p.Model.Layers, m.Layers)
	number("query_heads", p.Model.QueryHeads, m.QueryHeads)
	number("kv_heads", p.Model.KVHeads, m.KVHeads)
	number("head_dim", p.Model.HeadDim, m.HeadDim)
	if a, b := p.Model.WeightsSHA256, m.WeightsSHA256; a != "" && b != "" && !strings.EqualFold(a, b) {
		e.Differences = append(e.Differences, Difference{"weights_sha256", a, b})
	}
	if e.Differences == nil {
		return nil
	}
	return &e
}
