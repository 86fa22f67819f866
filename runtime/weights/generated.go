package weights

// Generated describes elements that are computed instead of stored: pseudo-random
// numbers, evenly spread between -Scale and Scale. Element i depends on Key, Scale
// and i alone, so that any part can be made anywhere: by [Generated.BF16] and, bit
// by bit the same, by the kernel fill_random of package cudakernels.
type Generated struct {
	Key   uint64  // tells the numbers of one tensor from those of others
	Scale float32 // at least 2^-100: its 2^-16th is no subnormal number
}

// generatedGroup is the number of elements that share one 64-bit random number.
const generatedGroup = 4

// group returns the random number of the elements 4j to 4j+3: the output of
// SplitMix64 with the state Key after j+1 steps (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, 2014).
func (g *Generated) group(j uint64) uint64 {
	x := g.Key + (j+1)*0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// BF16 computes the elements from first on.
func (g *Generated) BF16(dst []uint16, first int) {
	unit := g.Scale * 0x1p-16
	for len(dst) > 0 {
		x := g.group(uint64(first/generatedGroup)) >> (16 * (first % generatedGroup))
		n := min(generatedGroup-first%generatedGroup, len(dst))
		for i := range dst[:n] {
			// An odd multiple of 2^-16 between -1 and 1: none is 0, and their mean is.
			odd := 2*int32(int16(x)) + 1
			dst[i] = Float32ToBF16(float32(odd) * unit)
			x >>= 16
		}
		dst, first = dst[n:], first+n
	}
}
