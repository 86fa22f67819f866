package runtime

import (
	"errors"
	"fmt"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model"
)

// PageBytes returns the size of one KV page: the keys and values of one block of one
// KV head of one layer.
func (e *Engine) PageBytes() int { return e.device.PageBytes() }

// WeightBytes returns the bytes of weights that a decode step of that many sequences
// reads: everything once, and a row of the token embedding for each sequence. Where
// the device does not say how it stores them, they count as they are in the model file.
func (e *Engine) WeightBytes(sequences int) int64 {
	if d, ok := e.device.(backend.WeightReader); ok {
		return d.WeightBytes(sequences)
	}
	n := int64(0)
	for _, r := range e.model.Roles() {
		layers := 1
		if r.PerLayer() {
			layers = e.model.Layers
		}
		for i := range layers {
			t, ok := e.files.source.Tensor(e.model.TensorName(r, i))
			if !ok {
				continue // Check has seen them all
			}
			if r == model.TokenEmbedding {
				n += int64(sequences) * int64(t.Type.RowBytes(e.model.Hidden))
				if !e.model.TiedEmbeddings {
					continue
				}
			}
			n += int64(t.Bytes())
		}
	}
	return n
}

// ErrNotMeasured is what errors.Is finds when a device cannot be measured.
var ErrNotMeasured = errors.New("the device does not measure it")

// ReadBandwidth measures how fast the device reads its memory, in bytes a second: the
// bound of every decode step. No request may run meanwhile.
func (e *Engine) ReadBandwidth() (float64, error) {
	d, ok := e.device.(backend.BandwidthMeter)
	if !ok {
		return 0, fmt.Errorf("reading memory: %w", ErrNotMeasured)
	}
	return d.ReadBandwidth()
}

// BusyTime returns for how long the device has been busy with the steps that have
// ended, false when the device does not measure it. What it does not fill of the time
// between two calls, the device waited for the host.
func (e *Engine) BusyTime() (time.Duration, bool) {
	busy := e.engine.Stats().Busy
	return busy, busy > 0
}
