package attention

import (
	"fmt"
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/plan"
)

// What is appended is found again, widened, at its place in the panels, and
// nowhere else: tokens come in a mixed order, every other one, over pages of NaN.
func TestWidenedPagesHoldWhatWasAppended(t *testing.T) {
	for _, kv := range []backend.KVType{backend.KVF16, backend.KVBF16, backend.KVQ8_0} {
		for _, headDim := range []int{32, 64, 96, 160, 512} {
			t.Run(fmt.Sprintf("kv=%d/%d", kv, headDim), func(t *testing.T) {
				for _, set := range variants() {
					c := config(1, 1, headDim, kv, set)
					s := newSequence(c, plan.BlockSize, mixedRules, 11) // rounded numbers
					cache := newCache(t, c, 3)
					poison(cache)
					for i := range plan.BlockSize / 2 {
						slot := i * 26 % plan.BlockSize // all even slots: 13 is prime to 32
						cache.Append(1, slot, s.k[slot*headDim:][:headDim], s.v[slot*headDim:][:headDim])
					}
					keys, values := make([]float32, pageTokens*headDim), make([]float32, pageTokens*headDim)
					cache.format.widen(keys, values, cache.page(1))
					for slot := range pageTokens {
						for i := range headDim {
							key := keys[(slot/panelWidth*headDim+i)*panelWidth+slot%panelWidth]
							value := values[i/panelWidth*valuePanel+slot*panelWidth+i%panelWidth]
							if slot%2 == 1 {
								if key == key || value == value {
									t.Fatalf("%v: slot %d was written", set, slot)
								}
								continue
							}
							if key != s.k[slot*headDim+i] || value != s.v[slot*headDim+i] {
								t.Fatalf("%v: dimension %d of token %d is %v and %v, want %v and %v",
									set, i, slot, key, value, s.k[slot*headDim+i], s.v[slot*headDim+i])
							}
						}
					}
					for i, b := range append(append([]byte(nil), cache.page(0)...), cache.page(2)...) {
						if b != 0xff {
							t.Fatalf("%v: byte %d of the pages beside was written", set, i)
						}
					}
				}
			})
		}
	}
}

// Pages are the same bytes on every instruction set, also of numbers that are no
// small finite ones.
func TestPagesAreTheSameOnEveryISA(t *testing.T) {
	for _, kv := range []backend.KVType{backend.KVF16, backend.KVBF16, backend.KVQ8_0} {
		var want []byte
		for _, set := range variants() {
			c := config(1, 1, 96, kv, set)
			s := newSequence(c, plan.BlockSize, mixedRules, 12)
			for i := range s.k {
				s.k[i] *= float32(math.Ldexp(1, i/96*4-126)) // from the smallest magnitudes to the largest
				s.v[i] /= 3
			}
			s.v[5*96+40] = float32(math.Inf(-1))
			cache := newCache(t, c, 1)
			for slot := range plan.BlockSize {
				cache.Append(0, slot, s.k[slot*96:][:96], s.v[slot*96:][:96])
			}
			if want == nil {
				want = append(want, cache.memory...)
			} else if string(want) != string(cache.memory) {
				t.Errorf("cache of type %d: %v writes other bytes than %v", kv, set, variants()[0])
			}
		}
	}
}

// A block with a value that is not finite shows in the dimensions of that block
// of every row that sees it, in all ways to compute it, and in no other row.
func TestQ8ShowsInfinityInItsBlockOnly(t *testing.T) {
	const token, tokens = 70, 150
	for _, set := range variants() {
		s := newSequence(config(3, 1, 64, backend.KVQ8_0, set), tokens, []plan.Rule{plan.Dense}, 13)
		clean := s.prefill(t, newPool(t, 1), tokens)
		s.v[token*64+33] = float32(math.Inf(1))
		for _, chunk := range []int{1, 2, tokens} {
			out := s.prefill(t, newPool(t, 1), chunk)
			for i, v := range out {
				row, dim := i/(3*64), i%64
				if bad := row >= token && dim >= 32; bad != (v != v) || !bad && v != clean[i] {
					t.Fatalf("%v, chunks of %d: dimension %d of row %d is %v", set, chunk, dim, row, v)
				}
			}
		}
	}
}
