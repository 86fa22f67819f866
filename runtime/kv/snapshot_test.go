package kv

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/moaserve/moaserve/runtime/plan"
)

// compute takes a sequence to a length in one step.
func compute(t testing.TB, s *Sequence, to int) {
	t.Helper()
	if _, err := s.Extend(to, nil); err != nil {
		t.Fatal(err)
	}
	s.Advance()
}

func snapshotLayout() *plan.Layout {
	shape := plan.Shape{Layers: 1, QueryHeads: 3, KVHeads: 3, HeadDim: 8}
	p := plan.NewDense(shape)
	p.Floor = 0
	p.Rules = append(p.Rules, plan.Rule{Alpha: 64}, plan.Rule{Beta: 0.5})
	p.Heads[0] = []int{0, 1, 2}
	return p.Bind(0)
}

func TestContinuedSequenceSeesWhatTheFirstOneSees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool, l := NewPool(400), snapshotLayout()
		first := NewSequence(pool, l)
		tokens := rapid.IntRange(1, 1500).Draw(t, "tokens")
		for first.Len() < tokens {
			if _, err := first.Extend(min(tokens, first.Len()+rapid.IntRange(1, 300).Draw(t, "chunk")), nil); err != nil {
				t.Fatal(err)
			}
			first.Advance()
		}
		n := first.Snapshot()
		if n.Tokens() != tokens/plan.BlockSize*plan.BlockSize {
			t.Fatalf("the snapshot of %d tokens has %d", tokens, n.Tokens())
		}
		second := NewSequence(pool, l)
		second.Continue(n)
		q := n.Tokens() / plan.BlockSize
		for h := range l.Heads() {
			for b := 0; b < q; b++ {
				if b > 0 && b < l.Start(h, q) {
					continue
				}
				one, _ := first.Page(h, b)
				other, ok := second.Page(h, b)
				if !ok || one != other {
					t.Fatalf("block %d of head %d is page %d in the first and %d, %v in the second", b, h, one, other, ok)
				}
			}
		}
		if got := len(second.Entries(nil)); got != second.Pages() || second.Pages() != n.Pages() {
			t.Fatalf("%d entries, %d pages, the snapshot has %d", got, second.Pages(), n.Pages())
		}

		// In any order of leaving: a page stays as long as somebody holds it.
		used := map[int32]bool{}
		for _, s := range []*Sequence{first, second} {
			for _, d := range s.Entries(nil) {
				used[d.Page] = true
			}
		}
		if pool.Used() != len(used) {
			t.Fatalf("%d pages are in use, the sequences hold %d", pool.Used(), len(used))
		}
		leave := []func(){first.Release, second.Release, n.Release}
		for _, i := range rapid.Permutation([]int{0, 1, 2}).Draw(t, "order") {
			leave[i]()
		}
		if pool.Free() != pool.Pages() || pool.Used() != 0 || pool.Cached() != 0 {
			t.Fatalf("at the end %d pages are free, %d used, %d cached, of %d", pool.Free(), pool.Used(), pool.Cached(), pool.Pages())
		}
	})
}

func TestOnlyUnusedPagesCountAsCached(t *testing.T) {
	pool := NewPool(100)
	s := NewSequence(pool, snapshotLayout())
	compute(t, s, 128)
	n := s.Snapshot()
	if pool.Cached() != 0 || pool.Used() != s.Pages() {
		t.Errorf("while the sequence runs: %d cached, %d used", pool.Cached(), pool.Used())
	}
	s.Release()
	if pool.Cached() != n.Pages() || pool.Used() != 0 {
		t.Errorf("after it: %d cached, %d used, want %d and 0", pool.Cached(), pool.Used(), n.Pages())
	}
	s.Continue(n)
	if pool.Cached() != 0 || pool.Used() != n.Pages() {
		t.Errorf("when it continues: %d cached, %d used", pool.Cached(), pool.Used())
	}
}
