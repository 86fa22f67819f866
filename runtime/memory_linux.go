package runtime

import "golang.org/x/sys/unix"

// totalMemory returns the machine's memory in bytes, or a cautious guess where
// the system does not tell.
func totalMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 8 << 30
	}
	return int64(info.Totalram) * int64(info.Unit)
}
