package engine

import "math"

// costFit tells the cost of a mixed step from that of the latest ones, as a constant, a
// part for each token and a part for the work of tokens, in the least squares of what
// it saw. The latter two cannot be negative.
type costFit struct {
	seen [fitWindow]costSample
	n    int // samples so far; the latest is seen[(n-1)%fitWindow]

	cost   [3]float64 // of a step, a token, and a unit of work
	spread float64    // root of the mean square of what the fit leaves
}

type costSample struct {
	terms [3]float64 // 1, tokens, work
	cost  float64
}

const (
	// fitWindow is how many steps are remembered: enough for three figures, few enough
	// that a machine that became busy is believed within a prompt.
	fitWindow = 24
	// fitRidge, as a share of the squares in the window, keeps a figure near zero that
	// nothing tells from the others yet.
	fitRidge = 1e-4
	// fitForget is the weight of a step against that of the next one. A GPU becomes hot
	// and slower within a prompt, and then cools.
	fitForget = 0.9
	// fitMargin times the spread is added to what is expected: then one step in ten is
	// longer, if they scatter as most things do, and not by much.
	fitMargin = 1.3
)

func (f *costFit) known() bool { return f.n > 0 }

func (f *costFit) window() []costSample { return f.seen[:min(f.n, fitWindow)] }

// largest returns the most tokens of a step in the window.
func (f *costFit) largest() int {
	most := 0.
	for _, s := range f.window() {
		most = max(most, s.terms[1])
	}
	return int(most)
}

func (f *costFit) expect(tokens, work float64) float64 {
	if !f.known() {
		return 0
	}
	return f.cost[0] + f.cost[1]*tokens + f.cost[2]*work + fitMargin*f.spread
}

// learn takes in a step. What is longer than expected by more than hiccup is taken for
// that much.
func (f *costFit) learn(tokens, work, cost, hiccup float64) {
	if f.known() {
		cost = min(cost, f.expect(tokens, work)+hiccup)
	}
	f.seen[f.n%fitWindow] = costSample{terms: [3]float64{1, tokens, work}, cost: cost}
	f.n++
	f.fit()
}

// fit solves the normal equations, without the terms whose figures would be negative.
func (f *costFit) fit() {
	window := f.window()
	var scale [3]float64 // so that the terms are of about the same size
	for _, s := range window {
		for i, x := range s.terms {
			scale[i] = max(scale[i], x)
		}
	}
	var a [3][3]float64
	var b [3]float64
	weight, weights := 1., 0.
	for age := range window {
		s := f.seen[(f.n-1-age)%fitWindow]
		for i := range b {
			for j := range b {
				a[i][j] += weight * s.terms[i] * s.terms[j] / (scale[i] * scale[j])
			}
			b[i] += weight * s.terms[i] / scale[i] * s.cost
		}
		weights += weight
		weight *= fitForget
	}
	for i := range a {
		a[i][i] += fitRidge * weights
	}
	out := [3]bool{}
	for {
		x := solveSymmetric(a, b, out)
		worst := 1
		if x[2] < x[1] {
			worst = 2
		}
		if x[worst] >= 0 {
			for i := range x {
				f.cost[i] = x[i] / scale[i]
			}
			break
		}
		out[worst] = true
	}
	squares := 0.
	weight = 1
	for age := range window {
		s := f.seen[(f.n-1-age)%fitWindow]
		d := s.cost
		for i, x := range s.terms {
			d -= f.cost[i] * x
		}
		squares += weight * d * d
		weight *= fitForget
	}
	f.spread = math.Sqrt(squares / weights)
}

// solveSymmetric solves a x = b, a positive definite, with x[i] = 0 where out[i].
func solveSymmetric(a [3][3]float64, b [3]float64, out [3]bool) (x [3]float64) {
	for i := range out {
		if out[i] {
			for j := range out {
				a[i][j], a[j][i] = 0, 0
			}
			a[i][i], b[i] = 1, 0
		}
	}
	for i := range a { // elimination; the pivots of a definite matrix are positive
		for k := i + 1; k < len(a); k++ {
			r := a[k][i] / a[i][i]
			for j := i; j < len(a); j++ {
				a[k][j] -= r * a[i][j]
			}
			b[k] -= r * b[i]
		}
	}
	for i := len(a) - 1; i >= 0; i-- {
		x[i] = b[i]
		for j := i + 1; j < len(a); j++ {
			x[i] -= a[i][j] * x[j]
		}
		x[i] /= a[i][i]
	}
	return x
}
