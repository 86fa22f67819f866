//go:build !amd64 && !arm64

package workers

import "runtime"

// procyield gives the processor away: there is no pause instruction to spin on.
func procyield(uint32) { runtime.Gosched() }
