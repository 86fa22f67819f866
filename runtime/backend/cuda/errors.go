package cuda

import "errors"

// IsDeviceLost reports whether err, of a Step, means that the device is beyond
// use: a kernel faulted or the hardware failed, every further step will fail, and
// only a new process helps.
func IsDeviceLost(err error) bool {
	var e interface{ DeviceLost() bool }
	return errors.As(err, &e) && e.DeviceLost()
}
