// Package cpu computes on the processor: quantised products in Go assembly,
// attention that touches only the pages a plan names, and nothing that depends
// on how the work was split. It is the default on a machine without a GPU and the
// reference for the GPU.
//
// Each row of a batch is reduced in one fixed order, so a token's bits do not
// depend on the chunk, the batch or the number of threads it was computed with.
package cpu

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// New returns the CPU backend with the best instruction set of this processor.
// The environment variable MOASERVE_CPU_ISA (generic, avx2, avx512) overrides it.
func New() backend.Backend { return cpuBackend{set: chooseISA(os.Getenv("MOASERVE_CPU_ISA"))} }

// NewWithISA returns the CPU backend with a given instruction set, which this
// processor must have.
func NewWithISA(set isa.ISA) backend.Backend { return cpuBackend{set: set.Resolve()} }

// cpuBackend implements backend.Backend.
type cpuBackend struct{ set isa.ISA }

var _ backend.Backend = cpuBackend{}

// chooseISA never chooses what the processor lacks.
func chooseISA(name string) isa.ISA {
	for _, set := range isa.All() {
		if strings.EqualFold(set.String(), name) {
			return set
		}
	}
	return isa.Auto.Resolve()
}

// Name returns "cpu".
func (cpuBackend) Name() string { return "cpu" }

// Load repacks the weights for the kernels. Embedding rows are read from the
// source's own mapping as they are needed.
func (b cpuBackend) Load(ctx context.Context, m *model.Model, src weights.Source, o backend.Options) (backend.Device, error) {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.MaxBatchTokens <= 0 || o.MaxSequences <= 0 {
		return nil, fmt.Errorf("cpu: MaxBatchTokens is %d and MaxSequences %d; both must be positive", o.MaxBatchTokens, o.MaxSequences)
	}
	return load(ctx, b.set, m, src, o)
}
