package measure

import (
	"testing"

	"github.com/moaserve/moaserve/runtime/plan"
)

// Page by page: a page is read when its block is the first, or in the span of the block
// of the token that is computed.
func TestKVPagesAreThoseThatEachStepSees(t *testing.T) {
	shape := plan.Shape{Layers: 3, QueryHeads: 4, KVHeads: 2, HeadDim: 64, Context: 4096}
	for _, spec := range []string{"dense", "uniform:50%", "uniform:12%,floor=128", "uniform:25%,span=length", "mixed:40%"} {
		p, err := plan.Parse(spec, shape)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []decodedStream{
			{prompt: 1, from: 1, to: 2},
			{prompt: 63, from: 1, to: 4},
			{prompt: 640, from: 5, to: 140},
			{prompt: 2000, from: 0, to: 0},
			{prompt: 2047, from: 1, to: 70},
		} {
			s.layout = p.Bind(s.prompt + 300)
			want := int64(0)
			for token := s.from; token < s.to; token++ {
				// The step feeds the token before it, whose position that is.
				q := (s.prompt + token - 1) / plan.BlockSize
				for h := range s.layout.Heads() {
					for block := range q + 1 {
						if block == 0 || block >= s.layout.Start(h, q) {
							want++
						}
					}
				}
			}
			if got := s.kvPages(); got != want {
				t.Errorf("%s, tokens %d to %d after %d: %d pages, want %d", spec, s.from, s.to, s.prompt, got, want)
			}
		}
	}
}
