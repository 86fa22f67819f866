package weights

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// mapping is a whole file, mapped read-only. Pages are read from disk when they
// are first touched. A file that is cut short while it is mapped kills the
// process with SIGBUS on access: replace model files by renaming, never write
// into them.
type mapping struct {
	path string
	data []byte

	once  sync.Once
	unmap func() error
	err   error
}

func openMapping(path string) (*mapping, error) {
	// Stat first: opening a FIFO or a device could block or do harm.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // a mapping outlives its descriptor
	// Again, on the descriptor: this is the size that is mapped.
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	size := info.Size()
	if size == 0 {
		return nil, fmt.Errorf("%s: the file is empty", path)
	}
	if int64(int(size)) != size {
		return nil, fmt.Errorf("%s: %d bytes do not fit the address space", path, size)
	}
	data, unmap, err := mapFile(f, int(size))
	if err != nil {
		return nil, fmt.Errorf("%s: map: %w", path, err)
	}
	return &mapping{path: path, data: data, unmap: unmap}, nil
}

// Close unmaps the file; further calls return the first one's answer.
func (m *mapping) Close() error {
	m.once.Do(func() {
		m.data = nil
		if err := m.unmap(); err != nil {
			m.err = fmt.Errorf("%s: unmap: %w", m.path, err)
		}
	})
	return m.err
}

// closeOnError closes m when an open fails half-way, and returns both errors.
func closeOnError(m *mapping, err error) error { return errors.Join(err, m.Close()) }
