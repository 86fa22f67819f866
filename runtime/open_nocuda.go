//go:build !cuda

package runtime

import (
	"errors"

	"github.com/moaserve/moaserve/runtime/backend"
)

// newCUDA says which build has the CUDA backend.
func newCUDA(*Options) (backend.Backend, error) {
	return nil, errors.New("this build has no CUDA backend: build with `make build-cuda` (the build tag cuda), or use --backend cpu")
}
