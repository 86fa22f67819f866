package cudadrv

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestStickyErrorsAreTold(t *testing.T) {
	for code, want := range map[int]bool{1: false, 2: false, 214: true, 700: true, 701: false, 719: true, 900: false} {
		if got := (&Error{Code: code}).DeviceLost(); got != want {
			t.Errorf("code %d: lost is %t", code, got)
		}
		if (&Error{Code: code, BLAS: true}).DeviceLost() {
			t.Errorf("status %d of cuBLASLt is taken for the driver's", code)
		}
	}
}

func TestErrorsNameCallAndCode(t *testing.T) {
	err := fmt.Errorf("launching: %w", &Error{Call: "cuMemAlloc", Code: 2, Name: "CUDA_ERROR_OUT_OF_MEMORY", Text: "out of memory"})
	if !errors.Is(err, ErrOutOfMemory) || errors.Is(&Error{Code: 2, BLAS: true}, ErrOutOfMemory) {
		t.Errorf("out of memory is not recognised, or a status of cuBLASLt is")
	}
	for _, e := range []*Error{
		{Call: "cuMemAlloc", Code: 2, Name: "CUDA_ERROR_OUT_OF_MEMORY"}, {Call: "cuMemAlloc", Code: 2}, {Call: "cuMemAlloc", Code: 2, BLAS: true},
	} {
		if s := e.Error(); !strings.Contains(s, "cuMemAlloc") || !strings.Contains(s, "2") {
			t.Errorf("%q lacks the call or the code", s)
		}
	}
}
