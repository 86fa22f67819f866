//go:build tune

package attention

import (
	"bytes"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend"
)

func best(n int, f func()) time.Duration {
	b := time.Hour
	for range n {
		t := time.Now()
		f()
		b = min(b, time.Since(t))
	}
	return b
}

func TestTune(t *testing.T) {

	k := kernelsFor(variants()[len(variants())-1])
	cpu := func() time.Duration {
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for _, n := range []int{1, 2} {
		for _, batch := range []int{1, 16} {
			x := newBenchmark(t, n, batch, 7167, 1, max(16/batch, 1), backend.KVF16)
			pl := newPool(t, n)
			raw := unsafe.Slice((*byte)(unsafe.Pointer(&x.cache.memory[0])), 2*len(x.cache.memory))
			per := x.bytes / float64(len(x.queries))
			var ds, ms []time.Duration
			for r := range 200/batch + 30 {
				l := r % len(x.queries)
				s := time.Now()
				x.a.Run(x.queries[l])
				ds = append(ds, time.Since(s))
				part := raw[l*int(per) : (l+1)*int(per)]
				const pc = 128 << 10
				s = time.Now()
				pl.Run(len(part)/pc, func(_, i int) {
					if bytes.IndexByte(part[i*pc:(i+1)*pc], 0xf0) >= 0 { panic(1) }
				})
				ms = append(ms, time.Since(s))
			}
			slices.Sort(ds); slices.Sort(ms)
			for _, q := range []int{0, 10, 25} {
				fmt.Printf("workers %d batch %d: pct %d: decode %.1f GB/s, read %.1f GB/s\n", n, batch, q, per/float64(ds[len(ds)*q/100]), per/float64(ms[len(ms)*q/100]))
			}
		}
		if n > 1 { break }
		for _, depth := range []int{0, 2048, 7168} {
			x := newBenchmark(t, n, 1, depth, 512, 1, backend.KVF16)
			a, m, cc := make([]float32, 6*128), make([]float32, 16*128), make([]float32, 96)
			p := product{a: &a[0], lda: 512, b: unsafe.Pointer(&m[0]), c: &cc[0], ldc: 64, k: 128, panels: 1}
			var d, e time.Duration
			for range 6 {
				s := cpu()
				for range 1+ 4*(2048/(depth+200)) { x.run() }
				d += cpu() - s
				s = cpu(); for range 40000 { k.f32[6](&p) }; e += cpu() - s
			}
			pf, ff := x.flops*float64(6*(1+ 4*(2048/(depth+200))))/float64(d), 40000*6*2*96.0*128/float64(e)
			fmt.Printf("workers %d depth %d (by CPU time): prefill %.1f GFLOP/s, fma/core %.1f: %.2f\n", n, depth, pf, ff, pf/ff)
		}
	}
}
