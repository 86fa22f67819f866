package plan

import (
	"cmp"
	"slices"
)

// Grid spans the rules that a search chooses from.
type Grid struct {
	Alphas []int
	Betas  []float64
}

// UpstreamGrid returns the grid of the published search (MoA, appendix B.1, as
// its code has it): alphas from -shortest to profiled tokens in equal steps of
// about step tokens, and the nine betas 0, 1/8, ..., 1.
//
// shortest is the shortest length the plan must hold at, profiled the longest
// that is profiled.
func UpstreamGrid(shortest, profiled, step int) Grid {
	var g Grid
	n := (profiled+shortest)/max(step, 1) + 1
	for i := range n {
		g.Alphas = append(g.Alphas, -shortest+i*(profiled+shortest)/max(n-1, 1))
	}
	for i := range 9 {
		g.Betas = append(g.Betas, float64(i)/8)
	}
	return g
}

// Candidates returns the rules of the grid that are of use between the lengths
// shortest and longest, in tokens: those whose span alpha + beta*N is above 0 at
// shortest, and at most N both at the longest profiled length and at longest.
// They are ordered by their span at longest; rules of equal span keep the grid's
// order, alphas outermost.
func (g Grid) Candidates(shortest, profiled, longest int) []Rule {
	span := func(r Rule, n int) float64 { return float64(r.Alpha) + r.Beta*float64(n) }
	var rules []Rule
	for _, alpha := range g.Alphas {
		for _, beta := range g.Betas {
			r := Rule{Alpha: alpha, Beta: beta}
			if span(r, shortest) > 0 && span(r, profiled) <= float64(profiled) && span(r, longest) <= float64(longest) {
				rules = append(rules, r)
			}
		}
	}
	slices.SortStableFunc(rules, func(a, b Rule) int { return cmp.Compare(span(a, longest), span(b, longest)) })
	return rules
}
