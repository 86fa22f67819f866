package cudadrv

import (
	"errors"
	"fmt"
	"slices"
)

// ErrOutOfMemory is what errors.Is finds when the device has no memory left for
// an allocation. The error says how much was asked for and how much is free.
var ErrOutOfMemory = errors.New("out of device memory")

// Error is a failed call of the driver or of cuBLASLt.
type Error struct {
	Call string // the function, or the kernel and its launch
	Code int    // CUresult, or cublasStatus_t when BLAS
	Name string // "CUDA_ERROR_ILLEGAL_ADDRESS", when known
	Text string // the driver's explanation, when known
	BLAS bool
}

// Error names the call, the code and its meaning.
func (e *Error) Error() string {
	switch {
	case e.BLAS:
		return fmt.Sprintf("%s: cuBLASLt status %d", e.Call, e.Code)
	case e.Name == "":
		return fmt.Sprintf("%s: CUDA error %d", e.Call, e.Code)
	}
	return fmt.Sprintf("%s: %s (%d, %s)", e.Call, e.Name, e.Code, e.Text)
}

// codeOutOfMemory is CUDA_ERROR_OUT_OF_MEMORY.
const codeOutOfMemory = 2

// lostCodes are the results after which, as cuda.h says, the process must end:
// every further call answers the same.
var lostCodes = []int{
	46,  // DEVICE_UNAVAILABLE
	101, // INVALID_DEVICE: gone from the bus
	214, // ECC_UNCORRECTABLE
	220, // NVLINK_UNCORRECTABLE
	226, // CONTAINED
	700, // ILLEGAL_ADDRESS
	702, // LAUNCH_TIMEOUT
	709, // CONTEXT_IS_DESTROYED
	710, // ASSERT
	714, // HARDWARE_STACK_ERROR
	715, // ILLEGAL_INSTRUCTION
	716, // MISALIGNED_ADDRESS
	717, // INVALID_ADDRESS_SPACE
	718, // INVALID_PC
	719, // LAUNCH_FAILED
	721, // TENSOR_MEMORY_LEAK
}

// DeviceLost reports whether the error is sticky: the context is beyond use and
// only a new process helps.
func (e *Error) DeviceLost() bool { return !e.BLAS && slices.Contains(lostCodes, e.Code) }

// Is makes errors.Is find ErrOutOfMemory.
func (e *Error) Is(target error) bool {
	return target == ErrOutOfMemory && !e.BLAS && e.Code == codeOutOfMemory
}
