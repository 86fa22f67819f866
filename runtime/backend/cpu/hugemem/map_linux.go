package hugemem

import "golang.org/x/sys/unix"

// Map returns n zeroed bytes, resident only once they are written, and what gives
// them back; nil when the garbage collector does.
func Map(n int) (memory []byte, free func() error, err error) {
	memory, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	// A kernel without huge pages says EINVAL, and serves as well.
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	return memory, func() error { return unix.Munmap(memory) }, nil
}
