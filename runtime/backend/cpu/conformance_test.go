package cpu

import (
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
)

// Every instruction set of this processor passes the conformance suite, bit by
// bit, with activations of either precision.
func TestConformance(t *testing.T) {
	for _, set := range isa.All() {
		t.Run(set.String(), func(t *testing.T) {
			backendtest.Run(t, NewWithISA(set), backendtest.Options{})
		})
	}
	t.Run("int16", func(t *testing.T) {
		backendtest.Run(t, New(), backendtest.Options{Load: backend.Options{Activations: backend.Int16}})
	})
}

func TestInstructionSetIsChosenByName(t *testing.T) {
	best := isa.Auto.Resolve()
	for name, want := range map[string]isa.ISA{"": best, "generic": isa.Generic, "GENERIC": isa.Generic, "nonsense": best, best.String(): best} {
		if got := chooseISA(name); got != want {
			t.Errorf("%q chooses %v, want %v", name, got, want)
		}
	}
}
