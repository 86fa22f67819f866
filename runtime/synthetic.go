package runtime

import (
	"context"
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/hugemem"
	"github.com/moaserve/moaserve/runtime/synthetic"
)

// openSynthetic makes a model of random weights. Its weights are made where they are
// needed: see materialise.
func openSynthetic(path string, context int) (*files, error) {
	m, err := synthetic.Open(path, context)
	if err != nil {
		return nil, err
	}
	return &files{
		path: path, source: m.Source, model: m.Model, tokenizer: m.Tokenizer, template: m.ChatTemplate, sum: m.SHA256, fp8: m.FP8,
	}, nil
}

// materialise makes the bytes of generated tensors for a backend that reads bytes.
func (f *files) materialise(ctx context.Context, b backend.Backend) error {
	s, ok := f.source.(*synthetic.Source)
	if !ok {
		return nil
	}
	if g, ok := b.(backend.WeightGenerator); ok && g.GeneratesWeights() {
		return nil
	}
	// The backend repacks them and keeps the result, so for a while there are two.
	const gb = 1e9
	need, have := 2*s.Bytes(), totalMemory()
	if need > have {
		return fmt.Errorf("the weights of %s take %.1f GB, and as much again as the %s backend wants them; this machine has %.1f GB: "+
			"a GPU makes them in its own memory (--backend cuda)", f.path, float64(s.Bytes())/gb, b.Name(), float64(have)/gb)
	}
	return s.Materialise(ctx, &hugemem.Arena{})
}
