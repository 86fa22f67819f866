package attention

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// allocate maps n zeroed elements outside the Go heap, where they neither count
// against the collector's target nor move, and asks for huge pages: a decode
// step walks all of the cache, with a TLB miss for every 4 kB otherwise.
func allocate(n int) (memory []uint16, free func() error, err error) {
	raw, err := unix.Mmap(-1, 0, 2*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	// A kernel without huge pages says EINVAL, and serves as well.
	_ = unix.Madvise(raw, unix.MADV_HUGEPAGE)
	memory = unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(raw))), n)
	return memory, func() error { return unix.Munmap(raw) }, nil
}
