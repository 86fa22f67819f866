package runtime

import (
	"errors"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/synthetic"
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

func TestOnlyTheLargestSyntheticModelIsFP8Unasked(t *testing.T) {
	for _, name := range synthetic.Names() {
		f, err := openSynthetic(synthetic.Prefix+name, 0)
		if err != nil {
			t.Fatal(err)
		}
		onCUDA := backend.WeightsAuto
		if name == "llama-3-70b" {
			onCUDA = backend.WeightsFP8
		}
		for _, c := range []struct {
			asked   backend.WeightType
			backend string
			want    backend.WeightType
		}{
			{backend.WeightsAuto, "cuda", onCUDA},
			{backend.WeightsBF16, "cuda", backend.WeightsBF16},
			{backend.WeightsFP8, "cuda", backend.WeightsFP8},
			{backend.WeightsAuto, "cpu", backend.WeightsAuto},
		} {
			if got := f.weightType(c.asked, c.backend); got != c.want {
				t.Errorf("%s on %s, asked for %d: %d, want %d", name, c.backend, c.asked, got, c.want)
			}
		}
	}
}
