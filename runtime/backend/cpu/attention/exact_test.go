package attention

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/plan"
)

// The bits of a row must not depend on how the work was cut: each of these
// executions is compared with decoding token by token on one thread.

type exactCase struct {
	heads, kvHeads, headDim int
	kv                      backend.KVType
	tokens                  int
}

func (c exactCase) sequence(set int, seed uint64) *sequence {
	return newSequence(config(c.heads, c.kvHeads, c.headDim, c.kv, variants()[set]), c.tokens, mixedRules, seed)
}

var exactCases = []exactCase{
	{9, 3, 64, backend.KVF16, 1200}, {9, 3, 64, backend.KVBF16, 700}, {3, 3, 64, backend.KVF16, 600},
	{4, 2, 80, backend.KVF16, 330}, {8, 2, 24, backend.KVF16, 330}, {7, 1, 128, backend.KVF16, 200},
	{8, 1, 96, backend.KVF16, 200}, {10, 2, 16, backend.KVBF16, 1100}, {2, 1, 256, backend.KVF16, 140},
	{13, 1, 32, backend.KVF16, 200}, {3, 1, 16, backend.KVF16, 590},
	{9, 3, 64, backend.KVQ8_0, 1200}, {4, 2, 96, backend.KVQ8_0, 330}, {1, 1, 128, backend.KVQ8_0, 200},
	{14, 1, 32, backend.KVQ8_0, 200}, {2, 1, 32, backend.KVQ8_0, 590}, {5, 1, 64, backend.KVQ8_0, 200},
	{8, 2, 160, backend.KVQ8_0, 140},
}

func forExactCases(t *testing.T, f func(t *testing.T, s *sequence, want []float32)) {
	for set, name := range variants() {
		for _, c := range exactCases {
			if c.tokens > 600 && (name == isa.Generic || testing.Short()) || name == isa.Generic && testing.Short() {
				continue // plain Go takes seconds, and takes the same branches here
			}
			t.Run(fmt.Sprintf("%v/%+v", name, c), func(t *testing.T) {
				s := c.sequence(set, 4)
				f(t, s, s.prefill(t, newPool(t, 1), 1))
			})
		}
	}
}

func TestAnyChunkingGivesTheSameBits(t *testing.T) {
	forExactCases(t, func(t *testing.T, s *sequence, want []float32) {
		counts, chunkings := []int{1, 2, 4}, [][]int{{1, 3, 60, 1, 130, 2, 300, 1, 5}, {s.tokens}, {512}, {64}, {17}}
		if testing.Short() {
			counts, chunkings = counts[1:2], chunkings[:2]
		}
		for _, workers := range counts {
			pool := newPool(t, workers)
			for _, chunks := range chunkings {
				if !sameBits(s.prefill(t, pool, chunks...), want) {
					t.Errorf("chunks of %v on %d workers differ from decoding", chunks, workers)
				}
			}
		}
	})
}

func TestDecodeOnAnyNumberOfWorkersGivesTheSameBits(t *testing.T) {
	forExactCases(t, func(t *testing.T, s *sequence, want []float32) {
		for _, workers := range []int{2, 4} {
			if !sameBits(s.prefill(t, newPool(t, workers), 1), want) {
				t.Errorf("decoding on %d workers differs from decoding on one", workers)
			}
		}
	})
}

// Three sequences of different plans and lengths advance together, each by a
// random number of tokens a step, over one pool of pages with reuse.
func TestAnyBatchGivesTheSameBits(t *testing.T) {
	for _, name := range variants() {
		for _, c := range []struct {
			kv      backend.KVType
			workers int
		}{{backend.KVF16, 1}, {backend.KVF16, 2}, {backend.KVF16, 4}, {backend.KVQ8_0, 2}} {
			kv, workers := c.kv, c.workers
			if name == isa.Generic && (workers != 2 || testing.Short()) {
				continue
			}
			t.Run(fmt.Sprintf("%v/kv=%d/%d workers", name, kv, workers), func(t *testing.T) {
				c := config(9, 3, 64, kv, name)
				r := rand.New(rand.NewPCG(9, uint64(workers)))
				pool := newPool(t, workers)
				sequences := []*sequence{
					newSequence(c, 900, mixedRules, 5), newSequence(c, 640, []plan.Rule{plan.Dense}, 6),
					newSequence(c, 333, mixedRules[2:], 7),
				}
				// What the spans hold at most, less than all blocks would take, so
				// that pages are reused.
				pages := 0
				for _, s := range sequences {
					pages += s.layout.ChunkPages(s.tokens-200, s.tokens)
				}
				cache := newCache(t, c, pages)
				poison(cache)
				source := newPageSource(cache.Pages(), 1)
				a := New(cache, pool)
				at := make([]int, len(sequences))
				outs, tabs := make([][]float32, len(sequences)), make([]*tables, len(sequences))
				for i, s := range sequences {
					outs[i], tabs[i] = s.newOutput(), newTables(&c, s.tokens)
				}
				for {
					var queries []Query
					for _, i := range r.Perm(len(sequences)) {
						s := sequences[i]
						n := min([]int{0, 1, 1, 5, 64, 200}[r.IntN(6)], s.tokens-at[i])
						if n == 0 {
							continue
						}
						tabs[i].release(s, source, at[i])
						tabs[i].append(s, cache, source, at[i], at[i]+n)
						queries = append(queries, s.query(tabs[i], outs[i], at[i], at[i]+n))
						at[i] += n
					}
					a.Run(queries)
					if slices.Equal(at, []int{900, 640, 333}) {
						break
					}
				}
				for i, s := range sequences {
					if !sameBits(outs[i], s.prefill(t, newPool(t, 1), 1)) {
						t.Errorf("sequence %d differs from decoding alone", i)
					}
				}
			})
		}
	}
}

// A rule that sees everything is the dense plan, to the bit; so is a page that
// another sequence has used before (prefill poisons and recycles), and a call
// whose rows lie apart in wider matrices.
func TestDensePlanIsTheDensePath(t *testing.T) {
	for _, set := range variants() {
		c := config(6, 2, 32, backend.KVF16, set)
		dense := newSequence(c, 700, []plan.Rule{plan.Dense}, 8)
		wide := newSequence(c, 700, []plan.Rule{{Alpha: 700, Beta: 0.1}, {Alpha: 64, Beta: 1}}, 8)
		if !sameBits(dense.prefill(t, newPool(t, 2), 100), wide.prefill(t, newPool(t, 2), 1)) {
			t.Errorf("%v: a span over everything differs from dense", set)
		}
	}
}

func TestStridesLeaveTheGapsAlone(t *testing.T) {
	for _, set := range variants() {
		c := config(4, 2, 24, backend.KVF16, set)
		s := newSequence(c, 100, mixedRules, 1)
		want := s.prefill(t, newPool(t, 1), 100)
		cache, pool := newCache(t, c, pagesFor(&c, 100)), newPool(t, 2)
		table, source := newTables(&c, 100), newPageSource(cache.Pages(), 1)
		table.append(s, cache, source, 0, 100)
		const qStride, outStride = 4*24 + 48, 4*24 + 7
		q, out := make([]float32, 100*qStride), make([]float32, 100*outStride)
		for i := range out {
			out[i] = -1
		}
		for row := range 100 {
			copy(q[row*qStride:], s.q[row*96:][:96])
		}
		New(cache, pool).Run([]Query{{
			Q: q, Out: out, QStride: qStride, OutStride: outStride, Rows: 100, Pages: table.pages, Layout: s.layout,
		}})
		for row := range 100 {
			got := out[row*outStride:][:outStride]
			if !sameBits(got[:96], want[row*96:][:96]) {
				t.Fatalf("%v: row %d differs", set, row)
			}
			for _, v := range got[96:] {
				if v != -1 {
					t.Fatalf("%v: the gap after row %d was written", set, row)
				}
			}
		}
	}
}

// A later token whose key or value is not a number must not reach an earlier
// row of the same block, chunk and page.
func TestLaterTokensNeverReachEarlierRows(t *testing.T) {
	for i := range 2 * len(variants()) {
		set, kv := variants()[i/2], []backend.KVType{backend.KVF16, backend.KVQ8_0}[i%2]
		c := config(9, 3, 64, kv, set)
		s := newSequence(c, 200, mixedRules, 1)
		want := s.prefill(t, newPool(t, 1), 200)
		nan := float32(math.NaN())
		const from = 150
		for i := from * c.KVHeads * c.HeadDim; i < len(s.k); i++ {
			s.k[i], s.v[i] = nan, nan
		}
		got := s.prefill(t, newPool(t, 2), 200)
		n := from * c.Heads * c.HeadDim
		if !sameBits(got[:n], want[:n]) {
			t.Errorf("%v, cache of type %d: NaN at token %d changed an earlier row", set, kv, from)
		}
		for i, v := range got[n:] {
			if v == v {
				t.Fatalf("%v, cache of type %d: NaN was lost at element %d after token %d", set, kv, i, from)
			}
		}
	}
}

func TestExtremeScoresStayFinite(t *testing.T) {
	for _, set := range variants() {
		c := config(3, 1, 64, backend.KVF16, set)
		s := newSequence(c, 600, []plan.Rule{plan.Dense}, 1)
		for i := range s.q {
			s.q[i] *= 1e4 // scores of some ten thousands: one key takes all
		}
		out := s.prefill(t, newPool(t, 1), 600)
		for i, v := range out {
			if !(v < 10 && v > -10) {
				t.Fatalf("%v: element %d is %v", set, i, v)
			}
		}
		if !sameBits(out, s.prefill(t, newPool(t, 3), 1)) {
			t.Errorf("%v: decoding gives other bits", set)
		}
	}
}

func TestRunAndAppendDoNotAllocate(t *testing.T) {
	for _, kv := range []backend.KVType{backend.KVF16, backend.KVQ8_0} {
		s := newSequence(config(9, 3, 64, kv, 0), 1100, mixedRules, 1)
		cache, pool := newCache(t, s.config, pagesFor(&s.config, s.tokens)), newPool(t, 2)
		table, out := newTables(&s.config, s.tokens), s.newOutput()
		table.append(s, cache, newPageSource(cache.Pages(), 1), 0, s.tokens)
		a := New(cache, pool)
		queries := []Query{s.query(table, out, 1099, 1100), s.query(table, out, 500, 1000)}
		a.Run(queries)
		// Which worker grows its scratch memory for the largest tile is up to
		// chance; a few rounds give each its turn.
		for range 20 {
			a.Run(queries)
		}
		if n := testing.AllocsPerRun(20, func() { a.Run(queries) }); n != 0 {
			t.Errorf("cache of type %d: Run allocates %v times", kv, n)
		}
		if n := testing.AllocsPerRun(20, func() { cache.Append(0, 1, s.k[:64], s.v[:64]) }); n != 0 {
			t.Errorf("cache of type %d: Append allocates %v times", kv, n)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := config(9, 3, 64, backend.KVF16, 0)
	for name, change := range map[string]func(*Config){
		"heads not a multiple":      func(c *Config) { c.Heads = 10 },
		"no heads":                  func(c *Config) { c.Heads = 0 },
		"no KV heads":               func(c *Config) { c.KVHeads = 0 },
		"head dimension not by 8":   func(c *Config) { c.HeadDim = 60 },
		"head dimension too large":  func(c *Config) { c.HeadDim = 1024 },
		"scale forgotten":           func(c *Config) { c.Scale = 0 },
		"a KV type that is unknown": func(c *Config) { c.KV = 7 },
		"q8_0 in part of a block":   func(c *Config) { c.KV, c.HeadDim = backend.KVQ8_0, 48 },
	} {
		c := good
		change(&c)
		if _, err := NewCache(c, 1); !errors.Is(err, backend.ErrNotSupported) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
	if _, err := NewCache(good, 0); err == nil {
		t.Error("no pages: no error")
	}
	for kv, want := range []int{
		backend.KVF16: 2 * 64 * 64 * 2, backend.KVBF16: 2 * 64 * 64 * 2, backend.KVQ8_0: 2 * 64 * 64 / 32 * 34,
	} {
		c := good
		c.KV = backend.KVType(kv)
		if n := c.PageBytes(); n != want {
			t.Errorf("a page of type %d is %d bytes, want %d", kv, n, want)
		}
	}
}
