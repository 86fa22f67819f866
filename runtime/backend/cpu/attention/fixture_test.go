package attention

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
	"github.com/moaserve/moaserve/runtime/backend/cpu/workers"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// variants are the instruction sets to test on this processor.
func variants() []isa.ISA {
	var v []isa.ISA
	for _, set := range []isa.ISA{isa.Generic, isa.AVX2, isa.AVX512} {
		if set.Available() {
			v = append(v, set)
		}
	}
	return v
}

func config(heads, kvHeads, headDim int, kv backend.KVType, set isa.ISA) Config {
	return Config{
		Heads: heads, KVHeads: kvHeads, HeadDim: headDim, KV: kv, ISA: set,
		Scale: float32(1 / math.Sqrt(float64(headDim))),
	}
}

// sequence is one sequence of one layer with all of its queries, keys and
// values: q is [tokens][Heads*HeadDim], k and v are [tokens][KVHeads*HeadDim].
type sequence struct {
	config  Config
	tokens  int
	layout  *plan.Layout
	q, k, v []float32
}

func newSequence(c Config, tokens int, rules []plan.Rule, seed uint64) *sequence {
	p := &plan.Plan{Span: plan.SpanPosition, Rules: rules, Heads: [][]int{make([]int, c.KVHeads)}}
	for h := range c.KVHeads {
		p.Heads[0][h] = h % len(rules)
	}
	r := rand.New(rand.NewPCG(seed, uint64(tokens)))
	normal := func(n int, scale float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64() * scale)
		}
		return x
	}
	s := &sequence{
		config: c, tokens: tokens, layout: p.Bind(tokens),
		// Scores of standard deviation 3 give peaked weights and moving maxima.
		q: normal(tokens*c.Heads*c.HeadDim, 3),
		k: normal(tokens*c.KVHeads*c.HeadDim, 1),
		v: normal(tokens*c.KVHeads*c.HeadDim, 1),
	}
	// What the cache holds, so that the reference starts from the same numbers.
	ops, half := vec.For(isa.Generic), make([]uint16, len(s.k))
	for _, x := range [][]float32{s.k, s.v} {
		switch c.KV {
		case backend.KVBF16:
			ops.ToBF16(half, x)
			ops.FromBF16(x, half)
		case backend.KVQ8_0:
			roundQ8(x)
		default:
			ops.ToF16(half, x)
			ops.FromF16(x, half)
		}
	}
	return s
}

// roundQ8 rounds blocks of 32 as Q8_0 does, in float64 from its definition. The
// numbers are normal in f16 and quotients are correctly rounded or exact, so that
// nothing but the quotients' rounding to float32 can differ, and that only within
// 2^-17 of a tie: not in the tests' numbers.
func roundQ8(x []float32) {
	for ; len(x) > 0; x = x[32:] {
		largest := 0.0
		for _, v := range x[:32] {
			largest = max(largest, math.Abs(float64(v)))
		}
		scale := float64(weights.F16ToFloat32(weights.Float32ToF16(float32(largest / 127))))
		for i, v := range x[:32] {
			x[i] = float32(scale * math.RoundToEven(float64(v)/scale))
		}
	}
}

// reference computes row t of query head h in float64 with a materialised mask.
// bound is what an execution in float32 may be off by, in every dimension.
func (s *sequence) reference(t, h int) (out, bound []float64) {
	c := &s.config
	d, kv := c.HeadDim, h/c.group()
	q := s.q[(t*c.Heads+h)*d:][:d]
	at := func(x []float32, j int) []float32 { return x[(j*c.KVHeads+kv)*d:][:d] }
	start := s.layout.Start(kv, t/plan.BlockSize)

	scores, magnitudes := make([]float64, t+1), make([]float64, t+1)
	top := math.Inf(-1)
	for j := range scores {
		if b := j / plan.BlockSize; b != 0 && b < start {
			scores[j] = math.Inf(-1)
			continue
		}
		for i, v := range at(s.k, j) {
			scores[j] += float64(q[i]) * float64(v)
			magnitudes[j] = max(magnitudes[j], math.Abs(scores[j])*float64(c.Scale))
		}
		scores[j] *= float64(c.Scale)
		top = max(top, scores[j])
	}
	out = make([]float64, d)
	total := 0.0
	for j := range scores {
		scores[j] = math.Exp(scores[j] - top)
		total += scores[j]
	}
	for j, w := range scores {
		for i, v := range at(s.v, j) {
			out[i] += w / total * float64(v)
		}
	}

	// n roundings in a chain of partial sums below M add up to no more than
	// lambda*sqrt(n)*u*M, but for a chance of 2*exp(-lambda^2/2) (Higham and
	// Mary, 2019). A score is such a chain of d and the scaling; a weight
	// inherits its error as a relative one, and has 2 ulp from the power of two.
	// Outputs and sums are chains of the keys of a run, with a rounding or two a
	// page and a run.
	const u, lambda = 0x1p-24, 6
	keys := float64(min(t+1, runBlocks*plan.BlockSize))
	chain := lambda * math.Sqrt(keys+3*float64(t/plan.BlockSize)+10) * u
	bound = make([]float64, d)
	for j, w := range scores {
		weight := lambda*math.Sqrt(float64(d)+4)*u*magnitudes[j] + 4*u
		for i, v := range at(s.v, j) {
			bound[i] += w / total * (weight + chain) * (math.Abs(float64(v)) + math.Abs(out[i]))
		}
	}
	return out, bound
}

// tables are the page tables of a sequence, by KV head.
type tables struct {
	pages [][]int32
}

// pageSource deals pages in random order.
type pageSource struct {
	free []int32
}

func newPageSource(pages int, seed uint64) *pageSource {
	p := &pageSource{}
	for _, i := range rand.New(rand.NewPCG(seed, 7)).Perm(pages) {
		p.free = append(p.free, int32(i))
	}
	return p
}

func (p *pageSource) take() int32 {
	page := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return page
}

const noPage = math.MinInt32 // reading it faults

func newTables(c *Config, tokens int) *tables {
	t := &tables{pages: make([][]int32, c.KVHeads)}
	for h := range t.pages {
		t.pages[h] = slices.Repeat([]int32{noPage}, (tokens+plan.BlockSize-1)/plan.BlockSize)
	}
	return t
}

// append writes tokens [from, to), taking pages as blocks are entered.
func (t *tables) append(s *sequence, cache *Cache, source *pageSource, from, to int) {
	c := &s.config
	d := c.HeadDim
	for token := from; token < to; token++ {
		for h := range c.KVHeads {
			block := token / plan.BlockSize
			if t.pages[h][block] == noPage {
				t.pages[h][block] = source.take()
			}
			at := (token*c.KVHeads + h) * d
			cache.Append(t.pages[h][block], token%plan.BlockSize, s.k[at:at+d], s.v[at:at+d])
		}
	}
}

// release gives back the pages that no query from a position on can see.
func (t *tables) release(s *sequence, source *pageSource, position int) {
	for h, table := range t.pages {
		for b := 1; b < s.layout.Start(h, position/plan.BlockSize); b++ {
			if table[b] != noPage {
				source.free = append(source.free, table[b])
				table[b] = noPage
			}
		}
	}
}

func (s *sequence) query(t *tables, out []float32, from, to int) Query {
	stride := s.config.Heads * s.config.HeadDim
	return Query{
		Q: s.q[from*stride : to*stride], Out: out[from*stride : to*stride], QStride: stride, OutStride: stride,
		Rows: to - from, Start: from, Pages: t.pages, Layout: s.layout,
	}
}

func (s *sequence) newOutput() []float32 {
	return make([]float32, s.tokens*s.config.Heads*s.config.HeadDim)
}

// poison fills the whole cache with NaN.
func poison(c *Cache) {
	for i := range c.memory {
		c.memory[i] = 0xff // in f16 as in bf16
	}
}

func newCache(t testing.TB, c Config, pages int) *Cache {
	t.Helper()
	cache, err := NewCache(c, pages)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
	})
	return cache
}

func newPool(t testing.TB, n int) *workers.Pool {
	p := workers.New(n)
	t.Cleanup(p.Close)
	return p
}

func pagesFor(c *Config, tokens int) int {
	return (tokens + plan.BlockSize - 1) / plan.BlockSize * c.KVHeads
}

// prefill computes a whole sequence on a cache of its own in chunks; the last
// size repeats. The pages that have left the window are given back and reused.
func (s *sequence) prefill(t testing.TB, pool *workers.Pool, chunks ...int) []float32 {
	t.Helper()
	cache := newCache(t, s.config, pagesFor(&s.config, s.tokens))
	poison(cache)
	source := newPageSource(cache.Pages(), 3)
	a, table, out := New(cache, pool), newTables(&s.config, s.tokens), s.newOutput()
	for from := 0; from < s.tokens; {
		to := min(from+chunks[0], s.tokens)
		if len(chunks) > 1 {
			chunks = chunks[1:]
		}
		table.release(s, source, from)
		table.append(s, cache, source, from, to)
		a.Run([]Query{s.query(table, out, from, to)})
		from = to
	}
	return out
}

func checkReference(t *testing.T, s *sequence, out []float32, rows ...int) {
	t.Helper()
	d := s.config.HeadDim
	worst := 0.0
	for _, row := range rows {
		for h := range s.config.Heads {
			want, bound := s.reference(row, h)
			for i, v := range out[(row*s.config.Heads+h)*d:][:d] {
				e := math.Abs(float64(v) - want[i])
				if !(e <= bound[i]) {
					t.Fatalf("token %d, head %d, dimension %d is %v, want %v +- %.2g", row, h, i, v, want[i], bound[i])
				}
				worst = max(worst, e/bound[i])
			}
		}
	}
	t.Logf("largest error: %.3f of the bound", worst)
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}
