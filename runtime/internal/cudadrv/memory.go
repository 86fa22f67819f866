//go:build cuda

package cudadrv

import (
	"errors"
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// Ptr is an address in device memory; 0 is none.
type Ptr = uint64

// Memory is one allocation of device memory.
type Memory struct {
	p    cu.DevicePtr
	size int64
}

// Alloc allocates n bytes of device memory, at least 1. The contents are
// undefined.
func (c *Context) Alloc(n int64) (*Memory, error) {
	p, err := cu.MemAlloc(max(n, 1))
	if err != nil {
		err = check("cuMemAlloc", err)
		if free, infoErr := c.Free(); infoErr == nil {
			return nil, fmt.Errorf("allocating %.1f MiB of device memory, %.1f MiB are free of %.1f: %w", mib(n), mib(free), mib(c.props.Memory), err)
		}
		return nil, fmt.Errorf("allocating %.1f MiB of device memory: %w", mib(n), err)
	}
	return &Memory{p, n}, nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// Ptr returns the address.
func (m *Memory) Ptr() Ptr { return Ptr(m.p) }

// Size returns the number of bytes.
func (m *Memory) Size() int64 { return m.size }

// Free gives the memory back.
func (m *Memory) Free() error { return check("cuMemFree", cu.MemFree(m.p)) }

// Arena hands out parts of large allocations, which live as long as the arena.
// It saves the driver's granularity (2 MiB an allocation) for many small tensors.
type Arena struct {
	ctx   *Context
	slabs []*Memory
	next  Ptr
	left  int64
	used  int64
}

const (
	// arenaSlab is what the arena asks the driver for when small pieces need more.
	arenaSlab = 64 << 20
	// arenaAlign is what cuMemAlloc itself aligns to.
	arenaAlign = 256
)

// NewArena returns an empty arena.
func (c *Context) NewArena() *Arena { return &Arena{ctx: c} }

// Alloc returns n bytes, aligned to 256. Large pieces are allocations of their own, so
// that none of them leaves a slab unfinished.
func (a *Arena) Alloc(n int64) (Ptr, error) {
	n = (max(n, 1) + arenaAlign - 1) / arenaAlign * arenaAlign
	if n > a.left && n <= arenaSlab/4 {
		m, err := a.slab(arenaSlab)
		if err == nil {
			a.next, a.left = m.Ptr(), m.Size()
		} else if !errors.Is(err, ErrOutOfMemory) {
			return 0, err
		}
	}
	if n > a.left {
		m, err := a.slab(n)
		if err != nil {
			return 0, err
		}
		a.used += n
		return m.Ptr(), nil
	}
	p := a.next
	a.next += Ptr(n)
	a.left -= n
	a.used += n
	return p, nil
}

// slab allocates memory that belongs to the arena.
func (a *Arena) slab(n int64) (*Memory, error) {
	m, err := a.ctx.Alloc(n)
	if err == nil {
		a.slabs = append(a.slabs, m)
	}
	return m, err
}

// Used returns the bytes that were handed out.
func (a *Arena) Used() int64 { return a.used }

// Free gives everything back.
func (a *Arena) Free() error {
	var errs []error
	for _, m := range a.slabs {
		errs = append(errs, m.Free())
	}
	*a = Arena{ctx: a.ctx}
	return errors.Join(errs...)
}

// Pinned is page-locked host memory, which the device copies from and to by
// itself.
type Pinned struct {
	p    unsafe.Pointer
	size int
}

// NewPinned allocates n bytes of page-locked memory, zeroed.
func (c *Context) NewPinned(n int) (*Pinned, error) {
	p, err := hostAlloc(max(n, 1))
	if err != nil {
		return nil, fmt.Errorf("allocating %.1f MiB of page-locked host memory: %w", mib(int64(n)), err)
	}
	h := &Pinned{p, n}
	clear(h.Bytes())
	return h, nil
}

// Bytes returns the memory. It is not the garbage collector's: it must not be
// used once Free was called.
func (h *Pinned) Bytes() []byte { return unsafe.Slice((*byte)(h.p), h.size) }

// Free gives the memory back.
func (h *Pinned) Free() error { return check("cuMemFreeHost", cu.MemFreeHost(h.p)) }

// PinnedSlice views part of pinned memory as n elements of a type without
// pointers, from byte offset on. The offset must be a multiple of its alignment.
func PinnedSlice[T any](h *Pinned, offset, n int) []T {
	var t T
	if n == 0 {
		return nil
	}
	b := h.Bytes()[offset : offset+n*int(unsafe.Sizeof(t))]
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// Len returns the number of bytes.
func (h *Pinned) Len() int { return h.size }
