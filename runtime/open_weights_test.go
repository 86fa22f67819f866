package runtime

import (
	"errors"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
)

func TestTheCPURefusesWeightsInAnotherForm(t *testing.T) {
	for _, w := range []backend.WeightType{backend.WeightsBF16, backend.WeightsFP8} {
		if _, err := chooseBackend(&Options{Backend: "cpu", Weights: w}); !errors.Is(err, backend.ErrNotSupported) {
			t.Errorf("weights of type %d: %v", w, err)
		}
	}
	if _, err := chooseBackend(&Options{Backend: "cpu"}); err != nil {
		t.Error(err)
	}
}
