package plan

import (
	"testing"

	"pgregory.net/rapid"
)

// anyPlan draws a plan of a few heads with any rules.
func anyPlan(t *rapid.T) *Plan {
	p := Uniform("any", Shape{
		Layers:  rapid.IntRange(1, 3).Draw(t, "layers"),
		KVHeads: rapid.IntRange(1, 3).Draw(t, "kv heads"),
	}, Dense)
	p.Span = rapid.SampledFrom([]Span{SpanPosition, SpanLength}).Draw(t, "span")
	p.Floor = BlockSize * rapid.IntRange(0, 40).Draw(t, "floor")
	for range rapid.IntRange(1, 5).Draw(t, "more rules") {
		p.Rules = append(p.Rules, anyRule(t))
	}
	for _, layer := range p.Heads {
		for j := range layer {
			layer[j] = rapid.IntRange(0, len(p.Rules)-1).Draw(t, "rule")
		}
	}
	return p
}

func TestSpanNeverMovesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := anyPlan(t).Bind(rapid.IntRange(0, 1<<20).Draw(t, "total"))
		from := rapid.IntRange(0, 1<<14).Draw(t, "from")
		for h := range l.Heads() {
			last := 0
			for q := from; q < from+200; q++ {
				b, start := l.Blocks(h, q), l.Start(h, q)
				if b < 1 || b > q+1 {
					t.Fatalf("head %d at block %d: %d blocks", h, q, b)
				}
				if q > from && start < last {
					t.Fatalf("head %d, %+v: start went back from %d to %d at block %d", h, l.rules[h], last, start, q)
				}
				last = start
			}
		}
	})
}

func TestDenseRuleSeesEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(1, 1<<17).Draw(t, "total")
		p := Uniform("p", Shape{Layers: 1, KVHeads: 1}, Rule{Alpha: rapid.IntRange(0, MaxContext).Draw(t, "alpha"), Beta: 1})
		p.Span = rapid.SampledFrom([]Span{SpanPosition, SpanLength}).Draw(t, "span")
		l := p.Bind(total)
		q := rapid.IntRange(0, (total-1)/BlockSize).Draw(t, "q")
		if l.Start(0, q) != 0 || l.Visible(0, q) != q+1 || !p.Dense() || p.Density(total) != 1 {
			t.Fatalf("at block %d of %d tokens: start %d, %d pages, dense %v, density %v",
				q, total, l.Start(0, q), l.Visible(0, q), p.Dense(), p.Density(total))
		}
	})
}

// visible counts, block by block, what head h needs while the tokens from to
// to-1 are computed: the mask of the definition, query by query.
func visible(l *Layout, h, from, to int) int {
	n := 0
	for block := 0; block <= (to-1)/BlockSize; block++ {
		for q := from / BlockSize; q <= (to-1)/BlockSize; q++ {
			if block <= q && (block == 0 || block >= l.Start(h, q)) || block > q {
				n++ // visible to q, or written by the step itself
				break
			}
		}
	}
	return n
}

func TestPagesAreTheVisibleBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := anyPlan(t).Bind(4000)
		to := rapid.IntRange(1, 4000).Draw(t, "to")
		from := rapid.IntRange(0, to-1).Draw(t, "from")
		pages, chunk := 0, 0
		for h := range l.Heads() {
			pages += visible(l, h, to-1, to)
			chunk += visible(l, h, from, to)
		}
		if got := l.Pages(to); got != pages {
			t.Errorf("Pages(%d) = %d, brute force %d", to, got, pages)
		}
		if got := l.ChunkPages(from, to); got != chunk {
			t.Errorf("ChunkPages(%d, %d) = %d, brute force %d", from, to, got, chunk)
		}
		if pages > chunk {
			t.Errorf("tokens %d to %d need %d pages at the end and %d in one step", from, to, pages, chunk)
		}
		if l.Pages(0) != 0 || l.Pages(-1) != 0 {
			t.Error("an empty sequence needs pages")
		}
	})
}

// TestPeakPagesIsTheDearestStep compares with every step of every length that
// the promise allows.
func TestPeakPagesIsTheDearestStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := anyPlan(t).Bind(1200)
		to := rapid.IntRange(1, 1200).Draw(t, "to")
		from := rapid.IntRange(0, to-1).Draw(t, "from")
		chunk := rapid.IntRange(1, 300).Draw(t, "chunk")
		want := 0
		for s := from; s < to; s++ {
			want = max(want, l.ChunkPages(s, min(s+chunk, to)))
		}
		if got := l.PeakPages(from, to, chunk); got != want {
			t.Fatalf("PeakPages(%d, %d, %d) = %d, the dearest step needs %d", from, to, chunk, got, want)
		}
	})
}

func TestPeakOfDecodingIsTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := anyPlan(t).Bind(4000)
		to := rapid.IntRange(1, 4000).Draw(t, "to")
		from := rapid.IntRange(0, to).Draw(t, "from")
		if got, want := l.PeakPages(from, to, 1), l.Pages(to); got != want {
			t.Fatalf("PeakPages(%d, %d, 1) = %d, Pages(%d) = %d", from, to, got, to, want)
		}
	})
}

func TestPositionLayoutDoesNotDependOnTheTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPlan(t)
		p.Span = SpanPosition
		a, b := p.Bind(rapid.IntRange(0, 1<<20).Draw(t, "total")), p.Bind(rapid.IntRange(0, 1<<20).Draw(t, "another"))
		q := rapid.IntRange(0, 1<<14).Draw(t, "q")
		for h := range a.Heads() {
			if a.Blocks(h, q) != b.Blocks(h, q) {
				t.Fatalf("head %d at block %d: %d and %d blocks", h, q, a.Blocks(h, q), b.Blocks(h, q))
			}
		}
	})
}

func TestLengthLayoutHasOneSpanForTheSequence(t *testing.T) {
	p := Uniform("quarter", Shape{Layers: 1, KVHeads: 1}, Rule{Beta: 0.25})
	p.Span = SpanLength
	l := p.Bind(5000) // the bucket of 6144 tokens: 96 blocks, 24 of them seen
	for q, want := range map[int]int{0: 1, 23: 24, 24: 24, 77: 24} {
		if got := l.Blocks(0, q); got != want {
			t.Errorf("block %d sees %d blocks, want %d", q, got, want)
		}
	}
	if l.Plan() != p {
		t.Error("the layout forgot its plan")
	}
}

func TestHeadsAreNumberedLayerByLayer(t *testing.T) {
	p := &Plan{
		Model: Shape{Layers: 2, KVHeads: 2}, Span: SpanPosition,
		Rules: []Rule{{Alpha: 64}, {Alpha: 128}, {Alpha: 192}}, Heads: [][]int{{2, 0}, {1, 1}},
	}
	l := p.Bind(0)
	for h, want := range []int{3, 1, 2, 2} {
		if got := l.Blocks(h, 9); got != want {
			t.Errorf("head %d sees %d blocks, want %d", h, got, want)
		}
	}
}

func BenchmarkPeakPages(b *testing.B) {
	l := Uniform("half", Shape{Layers: 32, KVHeads: 8}, Rule{Beta: 0.5}).Bind(0)
	for b.Loop() {
		l.PeakPages(0, 32768, 512)
	}
}
