//go:build cuda

package cuda

import (
	"context"
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// New returns the CUDA backend on the first visible device. CUDA_VISIBLE_DEVICES
// chooses another.
func New() backend.Backend { return cudaBackend{} }

// cudaBackend implements backend.Backend.
type cudaBackend struct{}

var _ backend.Backend = cudaBackend{}

// Name returns "cuda".
func (cudaBackend) Name() string { return "cuda" }

// Load uploads the weights, those that are not bfloat16 converted to it, and
// quantises the projections there if Options.Weights says so. The Source is not
// needed afterwards.
func (cudaBackend) Load(ctx context.Context, m *model.Model, src weights.Source, o backend.Options) (backend.Device, error) {
	if o.MaxBatchTokens <= 0 || o.MaxSequences <= 0 {
		return nil, fmt.Errorf("cuda: MaxBatchTokens is %d and MaxSequences %d; both must be positive", o.MaxBatchTokens, o.MaxSequences)
	}
	if err := supported(m, o); err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := cudadrv.NewContext(0)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	leave, err := c.Enter()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cuda: %w", err), c.Close())
	}
	defer leave()
	d := &Device{cfg: m.Config, opts: o, ctx: c}
	if err := d.load(ctx, m, src); err != nil {
		return nil, errors.Join(fmt.Errorf("cuda: %w", err), d.Close())
	}
	return d, nil
}

// The bounds of the kernels, which say so beside their arguments.
const (
	maxGroup  = 8
	maxHidden = 16384
	vector    = 8 // bfloat16 elements of 16 bytes
)

// supported refuses what no kernel takes.
func supported(m *model.Model, o backend.Options) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", backend.ErrNotSupported, fmt.Sprintf(format, args...))
	}
	switch {
	case o.KV != backend.KVBF16 && o.KV != backend.KVFP8:
		return refuse("the KV cache is bf16 or fp8, no other type")
	case cudakernels.StoredHeadDim(m.HeadDim) == 0 || m.HeadDim%vector != 0:
		return refuse("a head dimension of %d; it must be a multiple of %d up to 256", m.HeadDim, vector)
	case m.Group() > maxGroup:
		return refuse("%d query heads for each KV head; at most %d", m.Group(), maxGroup)
	case m.Hidden%vector != 0 || m.Hidden > maxHidden:
		return refuse("a hidden size of %d; it must be a multiple of %d up to %d", m.Hidden, vector, maxHidden)
	case m.FFN%vector != 0:
		return refuse("a feed-forward size of %d; it must be a multiple of %d", m.FFN, vector)
	case o.Weights == backend.WeightsFP8:
		return supportedFP8(m)
	}
	return nil
}
