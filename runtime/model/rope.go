package model

import (
	"fmt"
	"math"
)

// ropeParams are the parameters of the rotary embedding as the files give them.
// Fields of other kinds of scaling than kind's are ignored.
type ropeParams struct {
	dims int     // rotated dimensions of a head, even
	base float64 // rope_theta
	kind string  // "", "linear", "llama3", "yarn"

	factor   float64 // how many times the context is extended
	original float64 // context, in tokens, before it was

	lowFreq, highFreq float64 // llama3

	betaFast, betaSlow float64 // yarn: turns within the original context
	attention          float64 // yarn: the attention factor; 0 for the paper's
	noTruncate         bool    // yarn: keep the ramp's ends fractional

	divisors []float64 // GGUF's rope_freqs.weight: what each frequency is divided by
}

// Bounds on rotary parameters, far outside of what has been trained: bases go
// from 1e4 to 1e7, factors from 1 to 40.
const (
	maxRopeBase   = 1e12
	maxRopeFactor = 1e6
)

// rope computes the frequencies, and checks every parameter that it uses.
func (p *ropeParams) rope() (Rope, error) {
	if err := inRange("rope base", p.base, 1, maxRopeBase); err != nil {
		return Rope{}, err
	}
	freqs := make([]float64, p.dims/2)
	for i := range freqs {
		freqs[i] = math.Pow(p.base, -2*float64(i)/float64(p.dims))
	}
	r := Rope{Frequencies: freqs, Scale: 1}
	if p.divisors != nil {
		if err := p.divide(freqs); err != nil {
			return Rope{}, err
		}
	}
	if p.kind == "" {
		return r, nil
	}
	if err := inRange("rope scaling factor", p.factor, 1, maxRopeFactor); err != nil {
		return Rope{}, err
	}
	var err error
	switch p.kind {
	case "linear":
		for i := range freqs {
			freqs[i] /= p.factor
		}
	case "llama3":
		err = p.llama3(freqs)
	case "yarn":
		r.Scale, err = p.yarn(freqs)
	default:
		err = unsupported("rope scaling %q", p.kind)
	}
	if err != nil {
		return Rope{}, err
	}
	return r, nil
}

// divide applies the precomputed factors of a rope_freqs.weight tensor.
func (p *ropeParams) divide(freqs []float64) error {
	if p.kind != "" && p.kind != "linear" {
		return unsupported("rope scaling %q together with %s", p.kind, ropeFreqsTensor)
	}
	if len(p.divisors) != len(freqs) {
		return fmt.Errorf("%s has %d factors, %d dimensions want %d",
			ropeFreqsTensor, len(p.divisors), p.dims, len(freqs))
	}
	for i, d := range p.divisors {
		if err := inRange(fmt.Sprintf("%s[%d]", ropeFreqsTensor, i), d, 1/maxRopeFactor, maxRopeFactor); err != nil {
			return err
		}
		freqs[i] /= d
	}
	return nil
}

// llama3 is Llama 3.1's scaling: wavelengths longer than original/lowFreq are
// stretched by the factor, those shorter than original/highFreq are kept, and
// between the two the frequency is interpolated. Source: the rope_scaling of the
// model card and apply_scaling of Meta's reference implementation.
func (p *ropeParams) llama3(freqs []float64) error {
	if err := inRange("rope original context", p.original, 1, maxContext); err != nil {
		return err
	}
	if err := inRange("rope low_freq_factor", p.lowFreq, 1/maxRopeFactor, maxRopeFactor); err != nil {
		return err
	}
	if err := inRange("rope high_freq_factor", p.highFreq, 1/maxRopeFactor, maxRopeFactor); err != nil {
		return err
	}
	if p.highFreq <= p.lowFreq {
		return fmt.Errorf("rope high_freq_factor %v is not above low_freq_factor %v", p.highFreq, p.lowFreq)
	}
	for i, f := range freqs {
		turns := p.original * f / (2 * math.Pi) // within the original context
		keep := clamp01((turns - p.lowFreq) / (p.highFreq - p.lowFreq))
		freqs[i] = (1-keep)*f/p.factor + keep*f
	}
	return nil
}

// yarn is YaRN (arXiv 2309.00071, section 3.2 and equation 22): NTK-by-parts
// interpolation, and a factor on queries and keys that replaces a temperature of
// the softmax. It returns that factor.
func (p *ropeParams) yarn(freqs []float64) (float64, error) {
	if err := inRange("rope original context", p.original, 1, maxContext); err != nil {
		return 0, err
	}
	if err := inRange("yarn beta_fast", p.betaFast, 1/maxRopeFactor, maxRopeFactor); err != nil {
		return 0, err
	}
	if err := inRange("yarn beta_slow", p.betaSlow, 1/maxRopeFactor, maxRopeFactor); err != nil {
		return 0, err
	}
	if p.base <= 1 {
		return 0, fmt.Errorf("rope base %v leaves yarn nothing to interpolate", p.base)
	}
	// Pair i turns original*base^(-2i/dims)/2pi times within the original
	// context; dimension solves that for i.
	dimension := func(turns float64) float64 {
		return float64(p.dims) * math.Log(p.original/(turns*2*math.Pi)) / (2 * math.Log(p.base))
	}
	low, high := dimension(p.betaFast), dimension(p.betaSlow)
	if !p.noTruncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, float64(p.dims-1))
	// Every published implementation guards against an empty ramp this way.
	width := max(high-low, 0.001)
	for i, f := range freqs {
		interpolate := clamp01((float64(i) - low) / width)
		freqs[i] = f/p.factor*interpolate + f*(1-interpolate)
	}
	if p.attention != 0 {
		return p.attention, inRange("yarn attention factor", p.attention, 1/maxRopeFactor, maxRopeFactor)
	}
	return yarnAttention(p.factor, 1), nil
}

// yarnAttention is the paper's factor for queries and keys, equation 22.
func yarnAttention(factor, mscale float64) float64 {
	if factor <= 1 {
		return 1
	}
	return 0.1*mscale*math.Log(factor) + 1
}

func clamp01(x float64) float64 { return min(max(x, 0), 1) }

// context returns the trained context after scaling. Files with linear or YaRN
// scaling often give the context before it: then it is the original context
// times the factor, when they tell that. Llama 3's give the one after it.
func (p *ropeParams) context(said int) int {
	if p.kind != "linear" && p.kind != "yarn" {
		return said
	}
	if scaled := p.original * p.factor; scaled > float64(said) && scaled <= maxContext {
		return int(scaled)
	}
	return said
}
