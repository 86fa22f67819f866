//go:build cuda

package cuda

import (
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/weights"
)

// productError is the relative error of a product's operands and result: the
// activations, the weights and the sums are each rounded to bfloat16,
// independently of one another, so the squares add up.
var productError = math.Sqrt(3) * backendtest.BF16Activations

// The suite on the GPU, or on the fake driver when that is what the process was
// started with.
func TestConformance(t *testing.T) {
	for _, kv := range [][]backend.KVType{{backend.KVBF16, backend.KVFP8}, {backend.KVFP8, backend.KVBF16}} {
		t.Run(kv[0].String()+" pages", func(t *testing.T) {
			backendtest.Run(t, New(), backendtest.Options{
				KV:        kv,
				Rounds:    true,
				Precision: func(weights.Type) float64 { return productError },
			})
		})
	}
}
