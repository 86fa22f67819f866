package plan

import (
	"fmt"
	"math"
	"sort"
)

// mixedSpread is how far the shares of a mixed plan's heads lie apart, before they are
// cut to what a share can be. With it a plan of half the context gives a sixth of the
// heads everything and a sixth next to nothing, which is about what a search finds.
const mixedSpread = 1.5

const (
	// mixedSteps is how finely the shares are graded: coarse enough that a plan has few
	// rules.
	mixedSteps = 32
	// mixedLocal is the span, in tokens, of heads that see next to nothing.
	mixedLocal = 256
)

// mixedTolerance is how far the density may be from what was asked for, as a share of
// it.
const mixedTolerance = 0.01

// Mixed returns a plan whose heads have spans spread around a mean, some dense and some
// very short, as a search gives, so that benchmarks need none. At a length of at tokens
// its density is what is asked for within 1 %. The same arguments give the same plan.
func Mixed(name string, m Shape, density float64, at int) (*Plan, error) {
	if m.Layers < 1 || m.KVHeads < 1 || at < 1 || at > MaxContext || !(density > 0 && density <= 1) {
		return nil, fmt.Errorf("a mixed plan of density %v at %d tokens for %d layers of %d KV heads", density, at, m.Layers, m.KVHeads)
	}
	p := Uniform(name, m, Dense)
	p.Rules = []Rule{{Alpha: mixedLocal}}
	for i := 1; i <= mixedSteps; i++ {
		p.Rules = append(p.Rules, Rule{Beta: float64(i) / mixedSteps})
	}
	spread := func(mean float64) float64 {
		for layer := range p.Heads {
			for h := range p.Heads[layer] {
				share := mean + mixedSpread*(position(layer*m.KVHeads+h)-0.5)
				p.Heads[layer][h] = int(math.Round(min(max(share, 0), 1) * mixedSteps))
			}
		}
		return p.Density(at)
	}
	// The density rises with the mean, by one head's rule at a time. The first mean that
	// is dense enough is looked for, and may be further off than the last one that is not.
	const grains = 1 << 16
	mean := func(i int) float64 { return (1+mixedSpread)*float64(i)/grains - mixedSpread/2 }
	i := sort.Search(grains, func(i int) bool { return spread(mean(i)) >= density })
	if above := spread(mean(i)); i > 0 && above-density > density-spread(mean(i-1)) {
		i--
	}
	got := spread(mean(i))
	if math.Abs(got-density) > mixedTolerance*density {
		return nil, fmt.Errorf("%d layers of %d KV heads cannot mix to a density of %.3f at %d tokens; the nearest is %.3f", m.Layers, m.KVHeads, density, at, got)
	}
	return p, nil
}

// position spreads the heads evenly over [0, 1), whichever of them one takes: the
// fractional parts of the multiples of the golden ratio.
func position(head int) float64 {
	_, f := math.Modf((float64(head) + 0.5) * (math.Sqrt(5) - 1) / 2)
	return f
}
