package cudakernels

import "slices"

// Module is one compiled source file.
type Module struct {
	Name   string
	SHA256 string // of the sources and the compiler's flags
	// Image is the fatbin: machine code for compute capabilities 8.0 and 9.0a, and
	// PTX for the others. It is loaded whole, NULs included.
	Image   string
	Kernels []Kernel
}

// Kernel is one function of a module.
type Kernel struct {
	Name   string
	Params int // 8 bytes each
}

// Modules returns the compiled sources.
func Modules() []Module { return slices.Clone(modules) }
