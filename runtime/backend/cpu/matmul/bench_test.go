package matmul

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/moaserve/moaserve/runtime/backend/cpu/hugemem"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/weights"
)

// BenchmarkMul reports multiply-accumulates a second on one core, on average and
// of the fastest product (the machine may be shared), and how fast the packed
// weights were read. For one row, copies of the matrix take turns that together
// exceed the caches, as the matrices of a model do.
func BenchmarkMul(b *testing.B) {
	set := isa.Auto.Resolve()
	for _, typ := range []weights.Type{weights.Q4_1, weights.Q8_0, weights.Q4_0, weights.Q5_0, weights.Q5_1, weights.Q4_K, weights.Q5_K, weights.Q6_K, weights.F16, weights.BF16, weights.F32} {
		for _, shape := range [][2]int{{576, 576}, {1536, 576}, {576, 1536}} {
			out, in := shape[0], shape[1]
			if in%kinds[typ].srcCols != 0 {
				out, in = 1024, 1024
			}
			for _, rows := range []int{1, 2, 4, 16, 64, 512} {
				b.Run(fmt.Sprintf("%s/%dx%d/rows=%d", typeNames[typ], out, in, rows), func(b *testing.B) {
					benchmarkMul(b, typ, set, out, in, rows)
				})
			}
		}
	}
	b.Run("Q8_0/49152x576/rows=1", func(b *testing.B) { benchmarkMul(b, weights.Q8_0, set, 49152, 576, 1) })
}

func benchmarkMul(b *testing.B, typ weights.Type, set isa.ISA, out, in, rows int) {
	rng := rand.New(rand.NewPCG(1, 1))
	w := newTensor(rng, typ, out, in, random)
	var memory hugemem.Arena
	defer func() { _ = memory.Free() }()
	copies := []*Matrix{pack(b, w, set)}
	for rows == 1 && len(copies)*copies[0].Bytes() < 128<<20 {
		c := *copies[0]
		c.data, _ = memory.Alloc(len(c.data))
		copy(c.data, copies[0].data)
		copies = append(copies, &c)
	}
	a := newActivations(rng, rows, in, false)
	dst := make([]float32, rows*out)
	n, best := 0, time.Hour
	for b.Loop() {
		m := copies[n%len(copies)]
		n++
		start := time.Now()
		m.Mul(dst, out, a, 0, rows, 0, m.Tiles())
		best = min(best, time.Since(start))
	}
	average := float64(b.Elapsed().Nanoseconds()) / float64(n)
	macs := float64(rows) * float64(out) * float64(in)
	b.ReportMetric(macs/average, "GMAC/s")
	b.ReportMetric(macs/float64(best.Nanoseconds()), "best-GMAC/s")
	b.ReportMetric(float64(copies[0].Bytes())/average, "GB/s")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkQuantize(b *testing.B) {
	a := newActivations(rand.New(rand.NewPCG(1, 1)), 1, 576, false)
	for b.Loop() {
		a.Quantize(0)
	}
	b.ReportMetric(576*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "values/ns")
}
