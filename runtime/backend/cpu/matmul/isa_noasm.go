//go:build !amd64

package matmul

// available reports whether this machine runs the kernels of i.
func (i ISA) available() bool { return i == Generic }
