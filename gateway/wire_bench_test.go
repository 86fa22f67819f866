package gateway

import (
	"testing"

	"github.com/moaserve/moaserve/runtime"
)

func BenchmarkChunk(b *testing.B) {
	e := &envelope{shape: shapeChat, id: "chatcmpl-0123456789abcdef0123456789abcdef", created: 1700000000, model: "tiny:dense"}
	c := newChunks(e, true)
	lp := newLogprobs(true, 0)
	token := runtime.Token{ID: 1, Bytes: []byte(" word"), Logprob: -.5}
	for _, bm := range []struct {
		name string
		lp   *logprobs
	}{{"text", nil}, {"logprobs", lp}} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				if bm.lp != nil {
					bm.lp.reset()
					bm.lp.add(&token)
				}
				buf = c.text(buf[:0], 0, " a \"word\"\n", bm.lp)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
