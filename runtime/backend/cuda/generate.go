//go:build cuda

package cuda

import (
	"fmt"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/weights"
)

var _ backend.WeightGenerator = cudaBackend{}

// GeneratesWeights returns true: the device computes generated tensors in place.
func (cudaBackend) GeneratesWeights() bool { return true }

// generate adds to the stream what makes n elements of a generated tensor, from one on,
// at p, as bfloat16.
func (d *Device) generate(p cudadrv.Ptr, g *weights.Generated, first, n int) error {
	if n%vector != 0 {
		return fmt.Errorf("%w: a generated tensor of %d elements; the number must be a multiple of %d", backend.ErrNotSupported, n, vector)
	}
	return launch(d, &cudakernels.FillRandom{
		Out: cudakernels.Ptr(p), First: int64(first), Elements: int64(n), Key: g.Key, Scale: float64(g.Scale),
	}, false)
}
