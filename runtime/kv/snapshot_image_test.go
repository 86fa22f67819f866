package kv

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/moaserve/moaserve/runtime/plan"
)

// computed returns a sequence of that many tokens, computed in chunks as drawn.
func computed(t *rapid.T, pool *Pool, l *plan.Layout, tokens int) *Sequence {
	s := NewSequence(pool, l)
	for s.Len() < tokens {
		if _, err := s.Extend(min(tokens, s.Len()+rapid.IntRange(1, 300).Draw(t, "chunk")), nil); err != nil {
			t.Fatal(err)
		}
		s.Advance()
	}
	return s
}

func TestRestoredSnapshotIsContinuedLikeTheOriginal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := snapshotLayout()
		tokens := rapid.IntRange(plan.BlockSize, 1500).Draw(t, "tokens")
		first := NewPool(400)
		original := computed(t, first, l, tokens).Snapshot()
		if !original.Fits(l) {
			t.Fatalf("the snapshot of %d tokens does not fit its own layout: starts %v", original.Tokens(), original.Starts())
		}

		second := NewPool(400)
		for range rapid.IntRange(0, 50).Draw(t, "taken before") {
			if _, err := second.Acquire(); err != nil {
				t.Fatal(err)
			}
		}
		free := second.Free()
		restored, err := NewSnapshot(second, l, original.Tokens(), original.Starts())
		if err != nil {
			t.Fatal(err)
		}
		from, to := original.AppendPages(nil), restored.AppendPages(nil)
		if len(from) != original.Pages() || len(to) != len(from) || restored.Pages() != len(to) || second.Cached() != len(to) || second.Free() != free-len(to) {
			t.Fatalf("%d pages listed of %d, %d of %d restored; %d are cached, %d of %d free",
				len(from), original.Pages(), len(to), restored.Pages(), second.Cached(), second.Free(), free)
		}

		// What the pages of one hold moves to the pages of the other: each block
		// of each head is found where the listing put it.
		moved := map[int32]int32{}
		for i := range from {
			moved[from[i]] = to[i]
		}
		a, b := NewSequence(first, l), NewSequence(second, l)
		a.Continue(original)
		b.Continue(restored)
		entries := b.Entries(nil)
		for i, e := range a.Entries(nil) {
			if e.Page = moved[e.Page]; entries[i] != e {
				t.Fatalf("entry %d is %+v, want %+v", i, entries[i], e)
			}
		}
		if len(entries) != len(to) {
			t.Fatalf("%d entries for %d pages", len(entries), len(to))
		}
		next := a.Len() + rapid.IntRange(1, 200).Draw(t, "next")
		if a.Need(next) != b.Need(next) || a.Pages() != b.Pages() || a.Len() != b.Len() {
			t.Fatalf("the original goes on with %d pages and %d more, the restored one with %d and %d", a.Pages(), a.Need(next), b.Pages(), b.Need(next))
		}
		restored.Release()
		b.Release()
		if second.Free() != free || second.Cached() != 0 {
			t.Fatalf("at the end %d of %d pages are free, %d cached", second.Free(), free, second.Cached())
		}
	})
}

func TestRestoringTakesAllPagesOrNone(t *testing.T) {
	pool := NewPool(7)
	starts := []int{0, 2, 3} // of 3 blocks: 3 pages, 1 and the sink, the sink alone
	n, err := NewSnapshot(pool, snapshotLayout(), 3*plan.BlockSize, starts)
	if err != nil || n.Pages() != 6 || !slices.Equal(n.Starts(), starts) {
		t.Fatalf("restored %+v, %v", n, err)
	}
	if _, err := NewSnapshot(pool, snapshotLayout(), 3*plan.BlockSize, starts); !errors.Is(err, ErrNoPages) || pool.Free() != 1 {
		t.Errorf("with one free page: %v; %d are free afterwards", err, pool.Free())
	}
	n.Release()
	if pool.Free() != 7 {
		t.Errorf("%d pages are free in the end", pool.Free())
	}
}

func TestImpossiblePrefixesAreRefused(t *testing.T) {
	pool := NewPool(100)
	for name, c := range map[string]struct {
		tokens int
		starts []int
	}{
		"no tokens":               {0, []int{0}},
		"negative":                {-plan.BlockSize, []int{0}},
		"inside a block":          {plan.BlockSize + 1, []int{0}},
		"no heads":                {plan.BlockSize, nil},
		"start before the prefix": {plan.BlockSize, []int{-1}},
		"start after the prefix":  {plan.BlockSize, []int{0, 2}},
	} {
		if n, err := NewSnapshot(pool, snapshotLayout(), c.tokens, c.starts); err == nil || errors.Is(err, ErrNoPages) || pool.Free() != 100 {
			t.Errorf("%s: %v, %v; %d pages are free", name, n, err, pool.Free())
		}
	}
}

func TestPrefixesOfOtherPlansDoNotFit(t *testing.T) {
	l := snapshotLayout()
	pool := NewPool(100)
	s := NewSequence(pool, l)
	compute(t, s, 512)
	n := s.Snapshot()
	for name, other := range map[string]*plan.Layout{
		"dense":      plan.NewDense(l.Plan().Model).Bind(0),
		"more heads": plan.NewDense(plan.Shape{Layers: 2, QueryHeads: 3, KVHeads: 3, HeadDim: 8}).Bind(0),
	} {
		if n.Fits(other) {
			t.Errorf("a prefix of another plan fits a layout: %s", name)
		}
	}
	if !n.Fits(l) {
		t.Error("a prefix does not fit its own layout")
	}
}
