package tokenizer

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// mergeByHand is byte-pair encoding as it is defined: as long as there is a rule
// for some pair of neighbours, apply the one of lowest rank, leftmost first.
func mergeByHand(m *merges, symbols []int32) []int32 {
	symbols = slices.Clone(symbols)
	for {
		best, at, into := uint32(noRank), -1, int32(0)
		for i := 0; i+1 < len(symbols); i++ {
			if rank, id := m.find(symbols[i], symbols[i+1]); rank < best {
				best, at, into = rank, i, id
			}
		}
		if at < 0 {
			return symbols
		}
		symbols = slices.Replace(symbols, at, at+2, into)
	}
}

// TestMergingEqualsDefinition draws rule tables in which ranks may be equal and
// a rule may outrank the rules that its parts come from.
func TestMergingEqualsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.Int32Range(1, 4).Draw(t, "letters")
		rules := rapid.IntRange(0, 30).Draw(t, "rules")
		m := newMerges(rules)
		for i := range rules {
			known := letters + int32(i) // a rule makes a new symbol out of earlier ones
			left := rapid.Int32Range(0, known-1).Draw(t, "left")
			right := rapid.Int32Range(0, known-1).Draw(t, "right")
			m.set(left, right, rapid.Uint32Range(0, uint32(rules)).Draw(t, "rank"), known)
		}
		symbols := rapid.SliceOfN(rapid.Int32Range(0, letters-1), 0, 200).Draw(t, "symbols")
		want := mergeByHand(&m, symbols)
		if got := m.apply(nil, slices.Clone(symbols)); !slices.Equal(got, want) {
			t.Fatalf("apply: %v, want %v", got, want)
		}
		if len(symbols) > 1 {
			if got := m.applyLong(nil, slices.Clone(symbols)); !slices.Equal(got, want) {
				t.Fatalf("applyLong: %v, want %v", got, want)
			}
		}
	})
}

func TestLaterRuleReplacesEarlier(t *testing.T) {
	m := newMerges(2)
	m.set(1, 2, 5, 10)
	m.set(1, 2, 7, 11)
	if rank, id := m.find(1, 2); rank != 7 || id != 11 {
		t.Errorf("rank %d into %d, want 7 into 11", rank, id)
	}
	if rank, _ := m.find(2, 1); rank != noRank {
		t.Errorf("rank %d for a pair without a rule", rank)
	}
}
