package tokenizer

import "math"

// noRank marks a pair of symbols that does not merge.
const noRank = math.MaxUint32

// merges is the rule table of byte-pair encoding: which two neighbours merge,
// how early, and into what. It is an open-addressing hash table because it is
// looked into for every pair of neighbouring symbols of the text: Go's map takes
// about three times as long.
type merges struct {
	slots []mergeSlot // a power of two, at most half full
	shift uint        // 64 - log2(len(slots))
}

type mergeSlot struct {
	pair uint64 // left<<32 | right; emptyPair marks a free slot
	rank uint32
	id   int32 // the merged symbol
}

const emptyPair = math.MaxUint64

// newMerges returns an empty table for up to n rules.
func newMerges(n int) merges {
	bits := uint(3)
	for 1<<bits < 2*n {
		bits++
	}
	m := merges{slots: make([]mergeSlot, 1<<bits), shift: 64 - bits}
	for i := range m.slots {
		m.slots[i].pair = emptyPair
	}
	return m
}

// slot returns where pair is, or where it would go.
func (m *merges) slot(pair uint64) *mergeSlot {
	// The multiplier is 2^64 divided by the golden ratio (Knuth, TAOCP 6.4).
	i := int(pair * 0x9E3779B97F4A7C15 >> m.shift)
	for m.slots[i].pair != pair && m.slots[i].pair != emptyPair {
		i = (i + 1) & (len(m.slots) - 1)
	}
	return &m.slots[i]
}

// set adds a rule. A later rule for the same pair replaces the earlier one, as
// in the reference.
func (m *merges) set(left, right int32, rank uint32, id int32) {
	pair := uint64(left)<<32 | uint64(uint32(right))
	*m.slot(pair) = mergeSlot{pair, rank, id}
}

// find returns the rank of a pair and what it merges into; noRank when it does
// not merge.
func (m *merges) find(left, right int32) (rank uint32, id int32) {
	pair := uint64(left)<<32 | uint64(uint32(right))
	if s := m.slot(pair); s.pair == pair {
		return s.rank, s.id
	}
	return noRank, 0
}

// shortPiece is the number of symbols up to which scanning all pairs for the
// best one is faster than keeping them in a heap. Words are far shorter.
const shortPiece = 64

// apply merges the symbols of one piece until no rule is left, always the pair
// of lowest rank and of those the leftmost, and appends the result to dst.
// symbols is overwritten. The cost is O(n log n).
func (m *merges) apply(dst, symbols []int32) []int32 {
	switch {
	case len(symbols) < 2:
		return append(dst, symbols...)
	case len(symbols) <= shortPiece:
		return m.applyShort(dst, symbols)
	}
	return m.applyLong(dst, symbols)
}

func (m *merges) applyShort(dst, symbols []int32) []int32 {
	var rank [shortPiece]uint32 // of the pair (i, i+1)
	var into [shortPiece]int32
	n := len(symbols)
	for i := range n - 1 {
		rank[i], into[i] = m.find(symbols[i], symbols[i+1])
	}
	for n > 1 {
		best, at := uint32(noRank), -1
		for i, r := range rank[:n-1] {
			if r < best {
				best, at = r, i
			}
		}
		if at < 0 {
			break
		}
		symbols[at] = into[at]
		copy(symbols[at+1:n-1], symbols[at+2:n])
		copy(rank[at:n-2], rank[at+1:n-1])
		copy(into[at:n-2], into[at+1:n-1])
		n--
		if at > 0 {
			rank[at-1], into[at-1] = m.find(symbols[at-1], symbols[at])
		}
		if at < n-1 {
			rank[at], into[at] = m.find(symbols[at], symbols[at+1])
		}
	}
	return append(dst, symbols[:n]...)
}

// applyLong keeps the pairs in a heap ordered by rank and position, and the
// symbols in a linked list. A pair that has changed since it was put into the
// heap is told by its rank, which is looked up again, and dropped.
func (m *merges) applyLong(dst, symbols []int32) []int32 {
	n := len(symbols)
	rank := make([]uint32, n) // of the pair that begins at i; noRank when i is gone
	links := make([]int32, 2*n)
	next, prev := links[:n], links[n:]
	heap := make(pairHeap, 0, n)
	for i := range n {
		next[i], prev[i] = int32(i+1), int32(i-1)
		rank[i] = noRank
		if i+1 < n {
			if rank[i], _ = m.find(symbols[i], symbols[i+1]); rank[i] != noRank {
				heap = append(heap, heapPair(rank[i], i))
			}
		}
	}
	heap.init()
	update := func(i int32) {
		rank[i] = noRank
		if next[i] < int32(n) {
			if rank[i], _ = m.find(symbols[i], symbols[next[i]]); rank[i] != noRank {
				heap.push(heapPair(rank[i], int(i)))
			}
		}
	}
	for len(heap) > 0 {
		top := heap.pop()
		i := int32(uint32(top))
		if rank[i] != uint32(top>>32) {
			continue
		}
		gone := next[i]
		_, symbols[i] = m.find(symbols[i], symbols[gone])
		rank[gone] = noRank
		if next[i] = next[gone]; next[i] < int32(n) {
			prev[next[i]] = i
		}
		if prev[i] >= 0 {
			update(prev[i])
		}
		update(i)
	}
	for i := int32(0); i < int32(n); i = next[i] {
		dst = append(dst, symbols[i])
	}
	return dst
}

// pairHeap is a min-heap of rank<<32 | position. It has four children a node:
// half the levels of a binary heap, and the four share a cache line or two.
type pairHeap []uint64

func heapPair(rank uint32, position int) uint64 { return uint64(rank)<<32 | uint64(uint32(position)) }

func (h pairHeap) init() {
	for i := (len(h) - 2) / 4; i >= 0 && len(h) > 1; i-- {
		h.down(i, h[i])
	}
}

func (h *pairHeap) push(p uint64) {
	*h = append(*h, p)
	q := *h
	i := len(q) - 1
	for i > 0 && q[(i-1)/4] > p {
		q[i] = q[(i-1)/4]
		i = (i - 1) / 4
	}
	q[i] = p
}

func (h *pairHeap) pop() uint64 {
	q := *h
	top, last := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	if len(q) > 0 {
		q.down(0, last)
	}
	*h = q
	return top
}

// down puts p where it belongs at or below i, whose own value is given up.
func (h pairHeap) down(i int, p uint64) {
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		child := first
		for c := first + 1; c < min(first+4, len(h)); c++ {
			if h[c] < h[child] {
				child = c
			}
		}
		if h[child] >= p {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = p
}
