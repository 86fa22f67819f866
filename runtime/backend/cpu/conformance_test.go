package cpu

import (
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/backend/cpu/matmul"
)

// Every instruction set of this processor passes the conformance suite, bit by
// bit, with activations of either precision.
func TestConformance(t *testing.T) {
	for isa := matmul.Generic; isa <= matmul.Detect(); isa++ {
		t.Run(isa.String(), func(t *testing.T) {
			backendtest.Run(t, NewWithISA(isa), backendtest.Options{})
		})
	}
	t.Run("int16", func(t *testing.T) {
		backendtest.Run(t, New(), backendtest.Options{Load: backend.Options{Activations: backend.Int16}})
	})
}

func TestInstructionSetIsChosenByName(t *testing.T) {
	best := matmul.Detect()
	for name, want := range map[string]matmul.ISA{"": best, "generic": matmul.Generic, "GENERIC": matmul.Generic, "nonsense": best, best.String(): best} {
		if got := chooseISA(name); got != want {
			t.Errorf("%q chooses %v, want %v", name, got, want)
		}
	}
}
