package attention

import (
	"fmt"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/plan"
)

// mixedRules go from one block to dense, with spans that grow in between.
var mixedRules = []plan.Rule{
	{Alpha: 0, Beta: 0}, {Alpha: 0, Beta: 1}, {Alpha: 128, Beta: 0.25}, {Alpha: 640, Beta: 0}, {Alpha: -64, Beta: 0.5},
}

// someRows are rows at and around block boundaries, and the ends.
func someRows(tokens int) []int {
	var rows []int
	for row := range tokens {
		if m := row % plan.BlockSize; row < 3 || row > tokens-3 || (m < 1 || m == 63 || m == 17) && row/plan.BlockSize%7 < 3 {
			rows = append(rows, row)
		}
	}
	return rows
}

func TestMatchesReference(t *testing.T) {
	for _, set := range variants() {
		pool := newPool(t, 2)
		for _, c := range []struct {
			heads, kvHeads, headDim int
			kv                      backend.KVType
			tokens                  int
		}{
			{9, 3, 64, backend.KVF16, 1}, {9, 3, 64, backend.KVF16, 2}, {9, 3, 64, backend.KVF16, 63},
			{9, 3, 64, backend.KVF16, 64}, {9, 3, 64, backend.KVF16, 65}, {9, 3, 64, backend.KVF16, 1300},
			{9, 3, 64, backend.KVBF16, 700},
			{1, 1, 64, backend.KVF16, 300}, {2, 1, 64, backend.KVF16, 300}, {3, 1, 64, backend.KVF16, 300},
			{4, 1, 64, backend.KVF16, 300}, {5, 1, 64, backend.KVF16, 300}, {6, 1, 64, backend.KVF16, 300},
			{7, 1, 64, backend.KVF16, 300}, {8, 1, 64, backend.KVF16, 300}, {16, 1, 64, backend.KVF16, 130},
			{4, 2, 8, backend.KVF16, 200}, {4, 2, 16, backend.KVF16, 200}, {4, 2, 24, backend.KVBF16, 200},
			{4, 2, 80, backend.KVF16, 200}, {4, 2, 96, backend.KVBF16, 200}, {4, 1, 128, backend.KVF16, 200},
			{4, 2, 256, backend.KVF16, 200}, {2, 1, 512, backend.KVF16, 100},
			{9, 3, 64, backend.KVQ8_0, 1}, {9, 3, 64, backend.KVQ8_0, 65}, {9, 3, 64, backend.KVQ8_0, 1300},
			{4, 4, 32, backend.KVQ8_0, 300}, {4, 2, 96, backend.KVQ8_0, 200}, {4, 1, 128, backend.KVQ8_0, 200},
			{5, 1, 160, backend.KVQ8_0, 200}, {6, 1, 256, backend.KVQ8_0, 200}, {2, 1, 512, backend.KVQ8_0, 100},
		} {
			if testing.Short() && c.tokens > 300 {
				continue
			}
			t.Run(fmt.Sprintf("%v/%+v", set, c), func(t *testing.T) {
				s := newSequence(config(c.heads, c.kvHeads, c.headDim, c.kv, set), c.tokens, mixedRules, 1)
				checkReference(t, s, s.prefill(t, pool, 512), someRows(c.tokens)...)
			})
		}
	}
}

func TestMatchesReferenceOnALongPrompt(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	for _, set := range variants() {
		t.Run(set.String(), func(t *testing.T) {
			tokens := 8192
			if set == isa.Generic {
				tokens = 2500 // plain Go takes seconds for more
			}
			s := newSequence(config(6, 3, 16, backend.KVF16, set), tokens, mixedRules, 2)
			checkReference(t, s, s.prefill(t, newPool(t, 2), 1000), 0, 63, 64, 1023, 1024, tokens/2, tokens-65, tokens-1)
		})
	}
}
