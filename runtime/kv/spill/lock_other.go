//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package spill

import (
	"errors"
	"fmt"
	"os"
)

// lock refuses: without flock, two servers could delete each other's files.
func lock(dir, _ string) (*os.File, error) {
	return nil, fmt.Errorf("locking the directory %s on this operating system: %w", dir, errors.ErrUnsupported)
}
