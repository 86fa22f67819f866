//go:build cuda

package cudadrv

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// Module is loaded device code.
type Module struct{ m cu.Module }

// LoadModule loads a fatbin, a cubin or PTX.
func (c *Context) LoadModule(image string) (*Module, error) {
	m, err := cu.LoadData(image)
	if err != nil {
		return nil, fmt.Errorf("loading kernels for %s: %w", c.props, check("cuModuleLoadData", err))
	}
	return &Module{m}, nil
}

// Close unloads the module.
func (m *Module) Close() error { return check("cuModuleUnload", m.m.Unload()) }

// Function is a kernel.
type Function struct {
	name   string
	f      cu.Function
	shared uint32 // dynamic shared memory that it may be launched with
}

// sharedByDefault is the dynamic shared memory that every kernel may have.
const sharedByDefault = 48 << 10

// Function returns the kernel of that name. A module that has none answers nil
// and no error.
func (m *Module) Function(name string) (*Function, error) {
	f, err := m.m.Function(name)
	if err == cu.NotFound { //nolint:errorlint // the binding returns its codes as they are
		return nil, nil
	}
	if err != nil {
		return nil, check("cuModuleGetFunction("+name+")", err)
	}
	return &Function{name: name, f: f, shared: sharedByDefault}, nil
}

// Launch is the shape of a launch.
type Launch struct {
	Grid    [3]uint32 // thread blocks
	Threads uint32    // of a block
	Shared  uint32    // bytes of dynamic shared memory
	// Overlap lets the kernel start before the one ahead of it in the stream is
	// done; it must wait itself for what it needs (griddepcontrol.wait).
	Overlap bool
}

// Launch adds the kernel to a stream. args points to its parameters, n values of
// 8 bytes each, and is read before Launch returns.
func (f *Function) Launch(s *Stream, l Launch, args unsafe.Pointer, n int) error {
	if l.Shared > f.shared {
		if err := setSharedMemory(f.f, l.Shared); err != nil {
			return fmt.Errorf("kernel %s with %d bytes of shared memory: %w", f.name, l.Shared, err)
		}
		f.shared = l.Shared
	}
	if err := launchKernel(f.f, s.s, l, args, n); err != nil {
		return fmt.Errorf("launching kernel %s, grid %v, %d threads, %d bytes of shared memory: %w", f.name, l.Grid, l.Threads, l.Shared, err)
	}
	return nil
}
