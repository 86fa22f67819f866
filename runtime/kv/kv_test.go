package kv_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/plan"
)

// mixedPlan draws a plan whose heads differ: one block, a share, everything.
func mixedPlan(t *rapid.T) *plan.Plan {
	shape := plan.Shape{Layers: rapid.IntRange(1, 3).Draw(t, "layers"), KVHeads: rapid.IntRange(1, 2).Draw(t, "kv heads")}
	p := plan.Uniform("mixed", shape, plan.Dense)
	p.Floor = plan.BlockSize * rapid.IntRange(0, 4).Draw(t, "floor")
	if rapid.Bool().Draw(t, "by length") {
		p.Span = plan.SpanLength
	}
	p.Rules = []plan.Rule{plan.Dense, {}, {Alpha: 96}, {Alpha: -64, Beta: 0.5}, {Alpha: 64, Beta: 0.25}, {Beta: 0.75}}
	for _, layer := range p.Heads {
		for h := range layer {
			layer[h] = rapid.IntRange(0, len(p.Rules)-1).Draw(t, "rule")
		}
	}
	return p
}

// book is the test's own record of one sequence: what was announced, and which
// of it is still needed.
type book struct {
	seq     *kv.Sequence
	layout  *plan.Layout
	entered map[[2]int]int32 // head, block -> page, as a device would know it
}

// visible lists the blocks of head h that a query in block q sees, from the
// definition: the sink, and the span.
func (b *book) visible(h, q int) []int {
	var blocks []int
	for block := range q + 1 {
		if block == 0 || block >= b.layout.Start(h, q) {
			blocks = append(blocks, block)
		}
	}
	return blocks
}

// check compares the holdings of all sequences with the definition. mid is the
// sequence that is between Extend and Advance, with the bounds of its chunk.
func check(t *rapid.T, pool *kv.Pool, books []*book, mid *book, from, to int) {
	owner := make(map[int32]string)
	for i, b := range books {
		first, last := b.seq.Len()/plan.BlockSize, (b.seq.Len()+plan.BlockSize-1)/plan.BlockSize-1
		if b == mid {
			first, last = from/plan.BlockSize, (to-1)/plan.BlockSize
		}
		total := 0
		for h := range b.layout.Heads() {
			held := 0
			for block := range last + 1 {
				needed := block == 0 || block >= b.layout.Start(h, first)
				page, ok := b.seq.Page(h, block)
				if needed != ok {
					t.Fatalf("sequence %d head %d block %d: needed %v, held %v (next token %d)", i, h, block, needed, ok, b.seq.Len())
				}
				if !ok {
					continue
				}
				held++
				name := fmt.Sprintf("sequence %d head %d block %d", i, h, block)
				if other, taken := owner[page]; taken {
					t.Fatalf("page %d belongs to %s and to %s", page, other, name)
				}
				owner[page] = name
				if b.entered[[2]int{h, block}] != page {
					t.Fatalf("%s is in page %d, the device was told %d", name, page, b.entered[[2]int{h, block}])
				}
				if pool.Refs(page) != 1 {
					t.Fatalf("%s: page %d has %d holders", name, page, pool.Refs(page))
				}
			}
			total += held
		}
		if total != b.seq.Pages() {
			t.Fatalf("sequence %d holds %d pages and counts %d", i, total, b.seq.Pages())
		}
	}
	if len(owner) != pool.Used() || pool.Used()+pool.Free() != pool.Pages() {
		t.Fatalf("%d pages have an owner; used %d, free %d of %d", len(owner), pool.Used(), pool.Free(), pool.Pages())
	}
}

// TestInterleavedSequencesKeepExactlyWhatTheNextTokenSees drives several
// sequences over a small pool with random chunks and compares the books with the
// definition of visibility after every call.
func TestInterleavedSequencesKeepExactlyWhatTheNextTokenSees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := kv.NewPool(rapid.IntRange(0, 200).Draw(t, "pages"))
		plans := []*plan.Plan{mixedPlan(t)}
		plans = append(plans, plan.NewDense(plans[0].Model))
		var books []*book
		for range rapid.IntRange(1, 4).Draw(t, "sequences") {
			l := rapid.SampledFrom(plans).Draw(t, "plan").Bind(rapid.IntRange(1, 3000).Draw(t, "total"))
			books = append(books, &book{seq: kv.NewSequence(pool, l), layout: l, entered: map[[2]int]int32{}})
		}
		for range rapid.IntRange(1, 120).Draw(t, "operations") {
			b := rapid.SampledFrom(books).Draw(t, "sequence")
			if rapid.IntRange(0, 19).Draw(t, "release") == 0 {
				b.seq.Release()
				clear(b.entered)
				check(t, pool, books, nil, 0, 0)
				continue
			}
			from := b.seq.Len()
			to := from + rapid.OneOf(rapid.Just(1), rapid.IntRange(1, 64), rapid.IntRange(1, 400)).Draw(t, "tokens")
			need, before := b.seq.Need(to), b.seq.Pages()
			if got, want := before+need, b.layout.ChunkPages(from, to); got != want {
				t.Fatalf("tokens %d to %d: %d held and %d needed, the plan says %d", from, to, before, need, want)
			}
			if b.seq.Reach(before+need) < to || need > 0 && b.seq.Reach(before+need-1) >= to {
				t.Fatalf("tokens %d to %d: %d held and %d needed, but %d pages reach token %d", from, to, before, need, before+need, b.seq.Reach(before+need))
			}
			deltas, err := b.seq.Extend(to, nil)
			if need > pool.Free()+len(deltas) {
				if !errors.Is(err, kv.ErrNoPages) || len(deltas) != 0 || b.seq.Pages() != before {
					t.Fatalf("Extend without room: %v, %d deltas, %d pages", err, len(deltas), b.seq.Pages())
				}
				check(t, pool, books, nil, 0, 0)
				continue
			}
			if err != nil || len(deltas) != need {
				t.Fatalf("Extend: %v, %d deltas for %d pages", err, len(deltas), need)
			}
			for _, d := range deltas {
				b.entered[[2]int{int(d.Head), int(d.Block)}] = d.Page
			}
			check(t, pool, books, b, from, to)
			for q := from / plan.BlockSize; q <= (to-1)/plan.BlockSize; q++ {
				for h := range b.layout.Heads() {
					for _, block := range b.visible(h, q) {
						if _, ok := b.seq.Page(h, block); !ok {
							t.Fatalf("tokens %d to %d: block %d of head %d is visible from block %d and not held", from, to, block, h, q)
						}
					}
				}
			}
			b.seq.Advance()
			check(t, pool, books, nil, 0, 0)
		}
		for _, b := range books {
			b.seq.Release()
		}
		if pool.Free() != pool.Pages() {
			t.Fatalf("%d of %d pages leaked", pool.Used(), pool.Pages())
		}
	})
}

func TestDecodingHoldsTheKVNeedOfThePlan(t *testing.T) {
	shape := plan.Shape{Layers: 2, KVHeads: 2}
	p := plan.Uniform("half", shape, plan.Rule{Alpha: 32, Beta: 0.5})
	p.Floor = 2 * plan.BlockSize
	l := p.Bind(0)
	pool := kv.NewPool(l.Pages(1500))
	s := kv.NewSequence(pool, l)
	for n := 1; n <= 1500; n++ {
		if _, err := s.Extend(n, nil); err != nil {
			t.Fatalf("token %d: %v", n, err)
		}
		if s.Pages() != l.Pages(n) {
			t.Fatalf("after %d tokens the sequence holds %d pages, the plan says %d", n, s.Pages(), l.Pages(n))
		}
		s.Advance()
	}
	if pool.Free() != 0 {
		t.Errorf("the pool was made for the need and has %d pages left", pool.Free())
	}
}

func TestSinkStaysPinnedWhenTheSpanHasLeftIt(t *testing.T) {
	p := plan.Uniform("one block", plan.Shape{Layers: 1, KVHeads: 1}, plan.Rule{})
	p.Floor = 0
	s := kv.NewSequence(kv.NewPool(2), p.Bind(0))
	var sink int32
	for q := range 50 {
		d, err := s.Extend((q+1)*plan.BlockSize, nil)
		if err != nil {
			t.Fatalf("block %d: %v", q, err)
		}
		if q == 0 {
			sink = d[0].Page
		}
		s.Advance()
		if page, ok := s.Page(0, 0); !ok || page != sink {
			t.Fatalf("after block %d the sink is in page %d (%v), it was in %d", q, page, ok, sink)
		}
	}
	if s.Pages() != 1 {
		t.Errorf("at a block boundary a one-block head holds %d pages; only the sink is needed", s.Pages())
	}
}

func TestPoolFreesAPageWithItsLastHolder(t *testing.T) {
	pool := kv.NewPool(1)
	page, err := pool.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	pool.Retain(page)
	if _, err := pool.Acquire(); !errors.Is(err, kv.ErrNoPages) {
		t.Fatalf("Acquire of a full pool: %v", err)
	}
	pool.Release(page)
	if pool.Free() != 0 {
		t.Fatal("the page was freed while it had a holder")
	}
	pool.Release(page)
	if pool.Free() != 1 {
		t.Fatal("the page was not freed with its last holder")
	}
	for name, f := range map[string]func(){
		"Release": func() { pool.Release(page) },
		"Retain":  func() { pool.Retain(page) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of a free page goes unnoticed", name)
				}
			}()
			f()
		}()
	}
}

func TestSlidingSequenceKeepsItsMemoryProportionalToItsSpan(t *testing.T) {
	p := plan.Uniform("two blocks", plan.Shape{Layers: 1, KVHeads: 1}, plan.Rule{Alpha: 128})
	p.Floor = 0
	s := kv.NewSequence(kv.NewPool(4), p.Bind(0))
	n := 0
	step := func() {
		n += plan.BlockSize
		if _, err := s.Extend(n, nil); err != nil {
			t.Fatal(err)
		}
		s.Advance()
	}
	for range 1000 {
		step()
	}
	// An append that never reused room would allocate more with every block.
	if got := testing.AllocsPerRun(1000, step); got > 3 {
		t.Errorf("%.1f allocations a block", got)
	}
}
