package backendtest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// sharedPrefix lets a sequence leave snapshots on its way and others continue them,
// at once and one after the other, while the pages that nobody holds any more are
// written by strangers. Every branch must answer like the same text from its start.
func (s *suite) sharedPrefix(t testing.TB) {
	const n = 180
	stops := []int{64, 128}
	kvType := s.o.KV[0]
	m, src := modeltest.New(t, s.small())
	dev := s.load(t, m, src, kvType)
	text := tokens(n, m.Vocab, 31)
	for _, name := range []string{"mixed", "one block"} {
		l := plans(m)[name].Bind(n)
		// A device has one pool at a time: what is expected is computed afterwards.
		type result struct {
			what   string
			logits [][]float32
			tokens []int32
			from   int // the first that was not continued
		}
		var results []result
		d := drive(t, dev, (len(stops)+2)*l.PeakPages(0, n, maxBatchTokens)+len(stops)*l.Pages(n))
		done := func(what string, x *sequence, chunk, from int) {
			results = append(results, result{what, d.finish(x, chunk), x.tokens, from})
		}
		var branched []*sequence
		first := d.start(0, l, text)
		var kept []*kv.Snapshot
		for i, stop := range stops {
			d.step(chunk{first, stop - first.kv.Len()})
			kept = append(kept, first.kv.Snapshot())
			other := slices.Concat(text[:stop], tokens(n-stop, m.Vocab, uint64(40+i)))
			branched = append(branched, d.follow(1+i, l, other, kept[i]))
		}
		// The first and its branches go on side by side, at their own pace.
		for first.kv.Len() < n-10 {
			chunks := []chunk{{first, 10}}
			for i, b := range branched {
				if left := n - b.kv.Len(); left > 0 {
					chunks = append(chunks, chunk{b, min(left, []int{1, 30}[i])})
				}
			}
			d.step(chunks...)
		}
		done("the sequence that others continued", first, 7, 0)
		for i, b := range branched {
			done(fmt.Sprintf("branch %d beside others", i), b, 50, stops[i])
		}
		// Strangers write what is free; then the snapshots are continued again.
		full := d.pages.Free() / l.Heads() * plan.BlockSize
		d.finish(d.start(5, plan.NewDense(m.Shape()).Bind(full), tokens(full, m.Vocab, 50)), maxBatchTokens)
		for i, snapshot := range kept {
			done(fmt.Sprintf("branch %d after strangers", i), d.follow(5, l, branched[i].tokens, snapshot), 33, stops[i])
			snapshot.Release()
		}
		d.close()
		for _, r := range results {
			want := s.alone(t, dev, l, r.tokens, 100)
			s.same(t, fmt.Sprintf("plan %s, %s", name, r.what), r.logits[r.from:], want[r.from:], kvType, weights.F32, m.Layers)
		}
	}
}
