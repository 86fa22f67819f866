//go:build !amd64

package attention

import (
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
)

func kernelsFor(isa.ISA) *kernels { return &genericKernels }
