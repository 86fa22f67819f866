package sample

import (
	"math"
	"slices"
)

// minLogprob stands for the log-probability of a token that the model excludes
// or whose logit is not a number; JSON has no -Inf. It is what OpenAI's API and
// vLLM answer.
const minLogprob = -9999

// describe fills in the log-probabilities of a choice from s.raw, the logits as
// they came, and uses them up.
func (s *Sampler) describe(c *Choice) {
	if uint(c.ID) < uint(len(s.raw)) {
		c.Logprob = s.raw[c.ID]
	}
	if k := min(s.params.TopLogprobs, len(s.raw)); k > 0 {
		s.best = largest(s.best, s.raw, k)
		slices.SortFunc(s.best, byRank)
		c.Top = slices.Clone(s.best)
	}
	norm := logSumExp(s.raw)
	c.Logprob = logprob(c.Logprob, norm)
	for i := range c.Top {
		c.Top[i].Logprob = logprob(c.Top[i].Logprob, norm)
	}
}

func logprob(x float32, norm float64) float32 {
	p := float64(min(x, math.MaxFloat32)) - norm
	if !(p > minLogprob) {
		return minLogprob
	}
	return float32(min(p, 0))
}

// logSumExp returns the logarithm of the sum of e^x; -Inf when nothing in x is
// above -Inf. It overwrites x.
func logSumExp(x []float32) float64 {
	best, ok := argmax(x)
	if !ok {
		return math.Inf(-1)
	}
	hi := min(x[best], math.MaxFloat32)
	return float64(hi) + math.Log(weigh(x, hi, 1, 0))
}
