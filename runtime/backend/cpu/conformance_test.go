package cpu

import (
	"errors"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Every instruction set of this processor passes the conformance suite, bit by
// bit, with activations of either precision and KV pages of every type.
func TestConformance(t *testing.T) {
	for _, set := range isa.All() {
		t.Run(set.String(), func(t *testing.T) {
			backendtest.Run(t, NewWithISA(set), backendtest.Options{})
		})
	}
	t.Run("q8_0", func(t *testing.T) {
		backendtest.Run(t, New(), backendtest.Options{
			KV: []backend.KVType{backend.KVQ8_0}, Types: []weights.Type{weights.F32, weights.Q4_1},
		})
	})
	t.Run("int16", func(t *testing.T) {
		backendtest.Run(t, New(), backendtest.Options{Load: backend.Options{Activations: backend.Int16}})
	})
}

func TestHeadDimensionsThatDoNotFitTheCacheAreRefused(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{HeadDim: 16})
	_, err := New().Load(t.Context(), m, src, backend.Options{KV: backend.KVQ8_0, MaxBatchTokens: 1, MaxSequences: 1})
	if !errors.Is(err, backend.ErrNotSupported) || !strings.Contains(err.Error(), "multiple of 32") {
		t.Errorf("q8_0 with a head dimension of 16: %v", err)
	}
}

func TestInstructionSetIsChosenByName(t *testing.T) {
	best := isa.Auto.Resolve()
	for name, want := range map[string]isa.ISA{"": best, "generic": isa.Generic, "GENERIC": isa.Generic, "nonsense": best, best.String(): best} {
		if got := chooseISA(name); got != want {
			t.Errorf("%q chooses %v, want %v", name, got, want)
		}
	}
}
