package attention

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/hugemem"
	"github.com/moaserve/moaserve/runtime/plan"
)

// The benchmarks have the shape of SmolLM2-135M: 9 query heads, 3 KV heads, 64
// dimensions. Layers follow each other on pages of their own, as in a step, so
// that a decode step reads memory and not a cache. They report:
//
//	GB/s     KV bytes read (decode), to compare with BenchmarkMemoryRead
//	GFLOP/s  2 for every multiply-add of visible whole pages and of the causal
//	         part of the own one (prefill), to compare with BenchmarkFMAPeak

const benchLayers = 8

type benchmark struct {
	config  Config
	cache   *Cache
	a       *Attention
	queries [][]Query // of every layer
	bytes   float64   // of visible pages, all layers
	flops   float64
}

func newBenchmark(b testing.TB, workers, batch, depth, rows, layers int, kv backend.KVType) *benchmark {
	c := config(9, 3, 64, kv, 0)
	x := &benchmark{config: c, cache: newCache(b, c, batch*layers*pagesFor(&c, depth+rows))}
	r := rand.New(rand.NewPCG(1, 2))
	memory := halves(x.cache.memory)
	for i := range memory { // small numbers of both signs, in f16 as in bf16, as scales and as codes
		memory[i] = uint16(r.Uint32())&0x837f | 0x3800
	}
	x.a = New(x.cache, newPool(b, workers))
	layout := plan.NewDense(plan.Shape{Layers: layers, KVHeads: c.KVHeads}).Bind(depth + rows)
	source := newPageSource(x.cache.Pages(), 1)
	stride := c.Heads * c.HeadDim
	for layer := range layers {
		var queries []Query
		for range batch {
			table := newTables(&c, depth+rows)
			for h := range table.pages {
				for i := range table.pages[h] {
					table.pages[h][i] = source.take()
				}
			}
			q := make([]float32, rows*stride)
			for i := range q {
				q[i] = float32(r.NormFloat64())
			}
			queries = append(queries, Query{
				Q: q, Out: make([]float32, len(q)), QStride: stride, OutStride: stride,
				Rows: rows, Start: depth, Pages: table.pages, Layout: layout, FirstHead: layer * c.KVHeads,
			})
		}
		x.queries = append(x.queries, queries)
	}
	x.bytes = float64(batch * layers * pagesFor(&c, depth+rows) * c.PageBytes())
	for row := range rows {
		x.flops += float64(batch*layers*(depth+row+1)) * float64(c.Heads*c.HeadDim) * 4
	}
	return x
}

func (x *benchmark) run() {
	for _, queries := range x.queries {
		x.a.Run(queries)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, kv := range []backend.KVType{backend.KVF16, backend.KVBF16, backend.KVQ8_0} {
		for _, workers := range []int{1, 2} {
			for _, batch := range []int{1, 16} {
				b.Run(fmt.Sprintf("depth=7168/kv=%d/batch=%d/workers=%d", kv, batch, workers), func(b *testing.B) {
					x := newBenchmark(b, workers, batch, 7168-1, 1, max(benchLayers/batch, 1), kv)
					for b.Loop() {
						x.run()
					}
					b.ReportMetric(x.bytes*float64(b.N)/1e9/b.Elapsed().Seconds(), "GB/s")
				})
			}
		}
	}
}

func BenchmarkPrefill(b *testing.B) {
	for _, kv := range []backend.KVType{backend.KVF16, backend.KVQ8_0} {
		for _, workers := range []int{1, 2} {
			for _, depth := range []int{0, 2048, 7168} {
				b.Run(fmt.Sprintf("rows=512/depth=%d/kv=%d/workers=%d", depth, kv, workers), func(b *testing.B) {
					x := newBenchmark(b, workers, 1, depth, 512, 1, kv)
					for b.Loop() {
						x.run()
					}
					b.ReportMetric(x.flops*float64(b.N)/1e9/b.Elapsed().Seconds(), "GFLOP/s")
				})
			}
		}
	}
}

// BenchmarkMemoryRead scans 256 MB, more than any cache here, for a byte that is
// not there: 32 bytes an instruction and no arithmetic.
func BenchmarkMemoryRead(b *testing.B) {
	const size, piece = 256 << 20, 1 << 20
	memory, free, err := hugemem.Map(size)
	if err != nil {
		b.Fatal(err)
	}
	for i := range memory {
		memory[i] = 1
	}
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) {
			pool := newPool(b, n)
			f := func(_, task int) {
				if bytes.IndexByte(memory[task*piece:][:piece], 0) >= 0 {
					panic("found a byte that is not there")
				}
			}
			for b.Loop() {
				pool.Run(size/piece, f)
			}
			b.ReportMetric(size*float64(b.N)/1e9/b.Elapsed().Seconds(), "GB/s")
		})
	}
	if free != nil {
		if err := free(); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkFMAPeak is the product kernel on operands in the first-level cache,
// 6 rows by 16 columns by 128 steps: what the FMA units give at best.
func BenchmarkFMAPeak(b *testing.B) {
	k := kernelsFor(variants()[len(variants())-1])
	const steps = 128
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) {
			pool := newPool(b, n)
			f := func(int, int) {
				a, m, c := make([]float32, maxRows*steps), make([]float32, panelWidth*steps), make([]float32, maxRows*panelWidth)
				p := product{
					a: &a[0], lda: 4 * steps, b: unsafe.Pointer(&m[0]), c: &c[0], ldc: 4 * panelWidth, k: steps, panels: 1,
				}
				for range 5000 {
					k.f32[maxRows](&p)
				}
			}
			for b.Loop() {
				pool.Run(n, f)
			}
			flops := float64(n) * 5000 * 2 * maxRows * panelWidth * steps
			b.ReportMetric(flops*float64(b.N)/1e9/b.Elapsed().Seconds(), "GFLOP/s")
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, kv := range []backend.KVType{backend.KVF16, backend.KVBF16, backend.KVQ8_0} {
		b.Run(fmt.Sprintf("kv=%d", kv), func(b *testing.B) {
			c := config(9, 3, 64, kv, 0)
			cache := newCache(b, c, 64)
			k := make([]float32, 64)
			for b.Loop() {
				for page := range int32(64) {
					for slot := range plan.BlockSize {
						cache.Append(page, slot, k, k)
					}
				}
			}
			b.ReportMetric(float64(b.N)*64*plan.BlockSize/1e6/b.Elapsed().Seconds(), "Mtokens/s")
		})
	}
}
