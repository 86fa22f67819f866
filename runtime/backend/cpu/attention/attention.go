// Package attention computes block-sparse causal attention over paged, ragged
// keys and values: every KV head has its own span and its own pages.
//
// The bits of an output row depend on its query, its position and the keys and
// values that it sees; not on how a prompt is cut into chunks, on the other rows
// and sequences of the call, or on the number of threads. The order of every
// reduction is therefore fixed by position alone: visible pages are grouped into
// runs of runBlocks blocks by their absolute number, the sink being part of run
// 0; an online softmax goes through the pages of a run in order; runs are merged
// in ascending order by their log-sum-exp (the split of Flash-Decoding, with
// fixed cuts).
package attention

import (
	"math"
	"slices"
	"sync/atomic"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/workers"
	"github.com/moaserve/moaserve/runtime/plan"
)

// runBlocks is the number of blocks of a run, the smallest piece of a row's work
// that another thread can take. 8 blocks of SmolLM2 are 128 kB: some
// microseconds of work, against tens of nanoseconds to merge.
const runBlocks = 8

// Query is the attention of one sequence in one layer: the consecutive new
// tokens of a decode step or of a chunk of the prompt. Their keys and values
// have been appended before.
type Query struct {
	// Q holds Rows rows of Heads*HeadDim floats, QStride floats apart; Out
	// receives the results in the same shape, OutStride apart.
	Q, Out             []float32
	QStride, OutStride int
	// Rows is the number of tokens and Start the absolute position of the first.
	Rows, Start int
	// Pages[h][b] is the page of block b of KV head h of this layer. Only the
	// entries of visible blocks are read.
	Pages [][]int32
	// Layout says what is visible; FirstHead is the layer's first head in it,
	// layer*KVHeads.
	Layout    *plan.Layout
	FirstHead int
}

// Attention computes attention over one cache. It keeps its scratch memory from
// call to call; calls of Run must not overlap.
type Attention struct {
	config  Config
	kernels *kernels
	// The kernels that read pages as they are, if there are any.
	directKeys, directValues *products
	cache                    *Cache
	pool                     *workers.Pool

	workers []worker
	runTask func(worker, task int) // one closure for the life of the Attention

	// The work of the current call.
	queries  []Query
	tiles    []tile
	tasks    []task
	partials []float32 // results of the runs of split tiles
}

// tile is the work of some consecutive rows of one sequence and KV head, all
// in the same block, so that all see the same pages.
type tile struct {
	query, head int32
	row, rows   int32 // first row in the query, and their number
	block       int32 // the block of the rows
	start       int32 // first block of their span
	partial     int   // where the results of its runs are in partials, if split
	left        int32 // unfinished tasks, if split
}

// task is some of the visible runs of a tile: [from, to), counted from 0.
type task struct {
	tile     int32
	from, to int32
	cost     int32 // pages times query rows
}

// New returns the attention over a cache, computed by the workers of a pool.
func New(cache *Cache, pool *workers.Pool) *Attention {
	a := &Attention{
		config: cache.config, kernels: kernelsFor(cache.config.ISA.Resolve()), cache: cache, pool: pool,
		workers: make([]worker, pool.Workers()),
	}
	switch a.config.KV {
	case backend.KVF16:
		a.directKeys, a.directValues = a.kernels.f16, a.kernels.f16
	case backend.KVBF16:
		a.directKeys, a.directValues = a.kernels.bf16, a.kernels.bf16
	case backend.KVQ8_0:
		a.directKeys, a.directValues = a.kernels.q8Keys, a.kernels.q8Values
	}
	for i := range a.workers {
		w := &a.workers[i]
		w.Attention = a
		for j := range w.ones {
			w.ones[j] = 1
		}
	}
	a.runTask = func(worker, task int) { a.workers[worker].task(&a.tasks[task]) }
	return a
}

// Run computes the attention of all queries. It does not allocate once its
// scratch memory fits the batch.
func (a *Attention) Run(queries []Query) {
	a.queries = queries
	a.plan()
	a.pool.Run(len(a.tasks), a.runTask)
	a.queries = nil
}

// maxTileFloats bounds the queries of a tile. With the two sets of outputs of
// the same size they leave half of a 512 kB second-level cache to the pages.
const maxTileFloats = 16 << 10

// plan cuts the work into tasks, the most expensive ones first.
func (a *Attention) plan() {
	a.tiles, a.tasks = a.tiles[:0], a.tasks[:0]
	group := a.config.group()
	tileRows := min(max(maxTileFloats/(group*a.config.HeadDim), 8), pageTokens)
	total := 0
	for i := range a.queries {
		q := &a.queries[i]
		for h := range a.config.KVHeads {
			for row := 0; row < q.Rows; {
				position := q.Start + row
				block := position / pageTokens
				rows := min(tileRows, pageTokens-position%pageTokens, q.Rows-row)
				t := tile{
					query: int32(i), head: int32(h), row: int32(row), rows: int32(rows), block: int32(block),
					start: int32(q.Layout.Start(q.FirstHead+h, block)),
				}
				a.tiles = append(a.tiles, t)
				total += t.pages(0, t.lastRun()) * rows * group
				row += rows
			}
		}
	}
	// Tiles that are a large part of a worker's share are split, lest the others
	// wait at the end; not further than needed, since the first page of a task
	// comes without being prefetched.
	most := max(total/(tasksPerWorker*len(a.workers)), 1)
	partials := 0
	for i := range a.tiles {
		t := &a.tiles[i]
		rows := int(t.rows) * group
		runs := t.runs()
		parts := 1
		if cost := t.pages(0, t.lastRun()) * rows; len(a.workers) > 1 && cost > most {
			parts = min((cost+most-1)/most, runs)
		}
		if parts > 1 {
			t.partial, t.left = partials, int32(parts)
			partials += runs * a.partialFloats(rows)
		}
		for part := range parts {
			k := task{tile: int32(i), from: int32(part * runs / parts), to: int32((part + 1) * runs / parts)}
			for run := k.from; run < k.to; run++ {
				n := t.run(int(run))
				k.cost += int32(t.pages(n, n) * rows)
			}
			a.tasks = append(a.tasks, k)
		}
	}
	a.partials = grow(a.partials, partials)
	slices.SortFunc(a.tasks, func(x, y task) int { return int(y.cost - x.cost) })
}

// tasksPerWorker is how finely the work is cut when there are few tiles: with
// the largest tasks first, a worker is idle for less than an eighth at the end.
const tasksPerWorker = 8

// lastRun is the run of the rows' own block.
func (t *tile) lastRun() int { return int(t.block) / runBlocks }

// runs is the number of runs with a visible page.
func (t *tile) runs() int {
	first := int(t.start) / runBlocks
	n := t.lastRun() - first + 1
	if first > 0 {
		n++ // the sink's
	}
	return n
}

// run is the number of the i-th run with a visible page.
func (t *tile) run(i int) int {
	first := int(t.start) / runBlocks
	switch {
	case i == 0:
		return 0
	case first == 0:
		return i
	default:
		return first + i - 1
	}
}

// pages is the number of visible pages of the runs from first to last.
func (t *tile) pages(first, last int) int {
	n := min((last+1)*runBlocks, int(t.block)+1) - max(first*runBlocks, int(t.start))
	n = max(n, 0)
	if first == 0 && t.start > 0 {
		n++
	}
	return n
}

// partialFloats is the size of the result of one run: maxima, sums, outputs.
func (a *Attention) partialFloats(rows int) int { return rows * (2 + a.config.valueCols()) }

// partialOf is where the result of the n-th visible run of a tile is kept.
func (a *Attention) partialOf(t *tile, n int) state {
	rows := int(t.rows) * a.config.group()
	size := a.partialFloats(rows)
	return stateIn(a.partials[t.partial+n*size:][:size], rows)
}

// state is the result of some of the pages for the rows of a tile: the maximum
// score, the sum of weights, and the sum of weighted values of every row.
type state struct {
	m, l, o []float32
}

func stateIn(memory []float32, rows int) state {
	return state{m: memory[:rows], l: memory[rows : 2*rows], o: memory[2*rows:]}
}

// finish marks one task of a split tile as done and reports whether it was the
// last.
func (t *tile) finish() bool { return atomic.AddInt32(&t.left, -1) == 0 }

// grow returns a slice of n elements, s itself when it is large enough.
func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n+n/4)[:n]
	}
	return s[:n]
}

// log2e turns a softmax in base e into one in base 2.
const log2e = math.Log2E

var minusInf = float32(math.Inf(-1))
