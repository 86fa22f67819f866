package sample

import "math"

// Both top_k and top_p keep a prefix of the tokens in the order of their weight,
// lowest ids first among equals. Neither needs that order: only where the prefix
// ends.

// largest returns the k largest numbers of x with their indices, the lowest
// indices among equals, in no particular order. -Inf and what is not a number
// are left out. It reuses dst.
//
// It is a heap of the k best so far. x is read in index order, so a later equal
// never displaces an earlier one, and most of a vocabulary fails one comparison.
func largest(dst []Logprob, x []float32, k int) []Logprob {
	dst = dst[:0]
	i := 0
	for ; i < len(x) && len(dst) < k; i++ {
		if x[i] > float32(math.Inf(-1)) {
			dst = append(dst, Logprob{int32(i), x[i]})
		}
	}
	if i == len(x) {
		return dst
	}
	for j := len(dst)/2 - 1; j >= 0; j-- {
		sink(dst, j)
	}
	for ; i < len(x); i++ {
		if x[i] > dst[0].Logprob {
			dst[0] = Logprob{int32(i), x[i]}
			sink(dst, 0)
		}
	}
	return dst
}

// sink restores the heap below i. The root is the entry that goes first: the
// smallest, and the highest index among equals.
func sink(h []Logprob, i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && byRank(h[c+1], h[c]) > 0 {
			c++
		}
		if byRank(h[c], h[i]) < 0 {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

// byRank orders by value, largest first, then by index.
func byRank(a, b Logprob) int {
	switch {
	case a.Logprob > b.Logprob:
		return -1
	case a.Logprob < b.Logprob:
		return 1
	}
	return int(a.ID) - int(b.ID)
}

// digit is the number of bits that truncate resolves in one pass over the weights.
const digit = 10

// truncate sets to 0 every weight after the shortest prefix that holds at least
// need: of the sum of the weights when byMass, else of their number. At least one
// weight stays. Weights are between 0 and 1.
//
// It is a radix select: between 0 and 1 the bits of a float32, as an integer, are
// in the order of its value and below 2^30. Three passes of ten bits find the
// weight at which the prefix ends, a fourth one clears what follows.
func truncate(w []float32, need float64, byMass bool) {
	var bins [1 << digit]float64
	prefix := uint32(0)
	for shift := 2 * digit; shift >= 0; shift -= digit {
		clear(bins[:])
		for _, x := range w {
			b := math.Float32bits(x)
			if b>>(shift+digit) != prefix || b == 0 {
				continue
			}
			if byMass {
				bins[b>>shift%(1<<digit)] += float64(x)
			} else {
				bins[b>>shift%(1<<digit)]++
			}
		}
		// Rounding may leave need above the sum by a little: then all of it is
		// needed, down to the last bin that holds anything.
		end := -1
		for b := len(bins) - 1; b >= 0; b-- {
			if bins[b] == 0 {
				continue
			}
			if end >= 0 {
				need -= bins[end]
			}
			if end = b; need <= bins[b] {
				break
			}
		}
		if end < 0 {
			return // no weight at all
		}
		prefix = prefix<<digit | uint32(end)
	}
	limit := math.Float32frombits(prefix)
	equals := int64(need)
	if byMass {
		equals = int64(math.Ceil(need / float64(limit)))
	}
	equals = max(equals, 1)
	for i, x := range w {
		if x > limit {
			continue
		}
		if x == limit && equals > 0 {
			equals--
			continue
		}
		w[i] = 0
	}
}
