package model

import (
	"fmt"
	"math"
)

// Bounds on a model's numbers: several times the largest published model of the
// family, and small enough that no product of them that is computed here or in
// a backend overflows 63 bits.
const (
	maxLayers  = 1 << 10
	maxHidden  = 1 << 17
	maxHeads   = 1 << 10
	maxHeadDim = 1 << 10
	maxFFN     = 1 << 20
	maxVocab   = 1 << 22
	maxContext = 1 << 26
)

// validate checks the numbers of a configuration against each other.
func (c *Config) validate() error {
	for _, n := range []struct {
		what     string
		value    int
		min, max int
	}{
		{"layers", c.Layers, 1, maxLayers},
		{"hidden size", c.Hidden, 1, maxHidden},
		{"query heads", c.Heads, 1, maxHeads},
		{"KV heads", c.KVHeads, 1, c.Heads},
		{"head dimension", c.HeadDim, 2, maxHeadDim},
		{"feed-forward size", c.FFN, 1, maxFFN},
		{"vocabulary", c.Vocab, 1, maxVocab},
		{"context", c.Context, 1, maxContext},
	} {
		if n.value < n.min || n.value > n.max {
			return fmt.Errorf("%s: %d is not between %d and %d", n.what, n.value, n.min, n.max)
		}
	}
	if c.Heads%c.KVHeads != 0 {
		return fmt.Errorf("%d query heads do not divide among %d KV heads", c.Heads, c.KVHeads)
	}
	if c.HeadDim%2 != 0 {
		return fmt.Errorf("head dimension %d is odd", c.HeadDim)
	}
	return inRange("norm epsilon", float64(c.NormEps), math.SmallestNonzeroFloat32, 1)
}

// inRange checks a number that must be finite and between two bounds.
func inRange(what string, x, low, high float64) error {
	if x >= low && x <= high { // false for NaN
		return nil
	}
	return fmt.Errorf("%s: %v is not between %v and %v", what, x, low, high)
}
