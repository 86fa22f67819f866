package runtime

import (
	"context"

	"github.com/moaserve/moaserve/runtime/kv/spill"
)

// defaultKVDirBytes is some dozens of long documents of a small model, or a few of a
// large one.
const defaultKVDirBytes = 4 << 30

// openSpill returns what opens the directory of kept prefixes, nil when there is to be
// none. Their files belong to the weights, all that changes what they compute, and
// the program.
func (e *Engine) openSpill(ctx context.Context, o Options) (func(format string, pageBytes int) (*spill.Store, error), error) {
	if o.KVDir == "" || o.NoPrefixCache {
		return nil, nil
	}
	sum, err := e.files.sha256(ctx)
	if err != nil {
		return nil, err
	}
	size := o.KVDirBytes
	if size == 0 {
		size = defaultKVDirBytes
	}
	return func(format string, pageBytes int) (*spill.Store, error) {
		return spill.Open(o.KVDir, spill.Options{
			MaxBytes: size, MaxQueued: spillQueue(), Format: format, Model: sum + " " + o.Build, PageBytes: pageBytes, Logger: o.Logger,
		})
	}, nil
}

// spillQueue returns how many bytes of prefixes may wait for the disk, and so how long
// one may be: a sixteenth of the memory, up to 2 GiB, which 16 384 tokens of Llama-3-8B
// take under a dense plan. Copying them holds the engine up, so there is a bound.
func spillQueue() int64 {
	return min(max(totalMemory()/16, spill.DefaultMaxQueued), 2<<30)
}
