//go:build cuda

package runtime

import (
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cuda"
)

// newCUDA returns the CUDA backend. Its cache is bf16 or fp8; f16, which is the default
// of the options, is taken for bf16.
func newCUDA(o *Options) (backend.Backend, error) {
	if o.KV == backend.KVF16 {
		o.KV = backend.KVBF16
	}
	return cuda.New(), nil
}
