package measure

import (
	"math"
	"math/rand/v2"
)

// promptLengths returns the lengths of a batch's prompts: evenly spread from 1-mix to
// 1+mix times the depth, in an order that has no trend. They add up to batch times
// depth, but for rounding.
func promptLengths(depth, batch int, mix float64) []int {
	lengths := make([]int, batch)
	rnd := rand.New(rand.NewPCG(uint64(batch), uint64(depth)))
	for i, place := range rnd.Perm(batch) {
		share := 1 - mix + 2*mix*(float64(place)+0.5)/float64(batch)
		lengths[i] = max(1, int(math.Round(share*float64(depth))))
	}
	return lengths
}

// randomPrompts returns prompts of those lengths. Another seed gives other ones, which
// have no beginning in common.
func randomPrompts(lengths []int, vocab int, seed uint64) [][]int32 {
	rnd := rand.New(rand.NewPCG(seed, uint64(len(lengths))))
	prompts := make([][]int32, len(lengths))
	for i, n := range lengths {
		prompts[i] = make([]int32, n)
		for j := range prompts[i] {
			prompts[i][j] = int32(rnd.IntN(vocab))
		}
	}
	return prompts
}
