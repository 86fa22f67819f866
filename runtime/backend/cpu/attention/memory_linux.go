package attention

import "golang.org/x/sys/unix"

// allocate maps n zeroed bytes outside the Go heap, where they neither count
// against the collector's target nor move, and asks for huge pages: a decode
// step walks all of the cache, with a TLB miss for every 4 kB otherwise.
func allocate(n int) (memory []byte, free func() error, err error) {
	memory, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	// A kernel without huge pages says EINVAL, and serves as well.
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	return memory, func() error { return unix.Munmap(memory) }, nil
}
