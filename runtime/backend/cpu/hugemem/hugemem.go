// Package hugemem takes large memory outside of the Go heap, where it neither
// counts against the collector's target nor moves, and asks for huge pages. A
// decode step walks all weights and all visible keys and values; with a TLB miss
// every 4 kB it is a sixth slower.
package hugemem

import (
	"errors"
	"fmt"
	"unsafe"
)

// Align is what memory of an Arena is aligned to: a cache line, so that no load of
// 64 bytes crosses one where blocks are multiples of it.
const Align = 64

// chunkBytes is how much an Arena maps at a time; what is never written costs
// nothing. pageBytes is the size of a huge page.
const (
	chunkBytes = 64 << 20
	pageBytes  = 2 << 20
)

// Arena hands out parts of large mappings, which live as long as the Arena. The
// zero value is empty. It is not safe for concurrent use.
type Arena struct {
	left []byte
	free []func() error
}

// Alloc returns n zeroed bytes.
func (a *Arena) Alloc(n int) ([]byte, error) {
	size := (n + Align - 1) / Align * Align
	if size > len(a.left) {
		memory, free, err := Map(max(size, chunkBytes) + pageBytes)
		if err != nil {
			return nil, fmt.Errorf("mapping %d MB of memory: %w", max(size, chunkBytes)>>20, err)
		}
		if free != nil {
			a.free = append(a.free, free)
		}
		// Huge pages are aligned to their size.
		skip := -uintptr(unsafe.Pointer(unsafe.SliceData(memory))) % pageBytes
		a.left = memory[skip:]
	}
	b := a.left[:n:n]
	a.left = a.left[size:]
	return b, nil
}

// Free gives everything back. Nothing that Alloc returned may be used afterwards.
func (a *Arena) Free() error {
	var errs []error
	for _, free := range a.free {
		errs = append(errs, free())
	}
	*a = Arena{}
	return errors.Join(errs...)
}
