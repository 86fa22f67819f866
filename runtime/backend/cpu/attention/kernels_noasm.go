//go:build !amd64

package attention

import "github.com/moaserve/moaserve/runtime/backend/cpu/vec"

func kernelsFor(vec.ISA) *kernels { return &genericKernels }
