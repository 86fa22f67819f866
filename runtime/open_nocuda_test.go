//go:build !cuda

package runtime

import (
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
)

func TestWithoutCUDATheBuildIsNamed(t *testing.T) {
	if _, err := chooseBackend(&Options{Backend: "cuda"}); err == nil || !strings.Contains(err.Error(), "make build-cuda") {
		t.Errorf("--backend cuda: %v", err)
	}
	for _, name := range []string{"", "auto", "cpu"} {
		o := Options{Backend: name, KV: backend.KVF16}
		if b, err := chooseBackend(&o); err != nil || b.Name() != "cpu" || o.KV != backend.KVF16 {
			t.Errorf("backend %q: %v, %v, cache %v", name, b, err, o.KV)
		}
	}
}
