//go:build !linux

package hugemem

// Map returns n zeroed bytes, resident only once they are written, and what gives
// them back; nil when the garbage collector does.
func Map(n int) (memory []byte, free func() error, err error) { return make([]byte, n), nil, nil }
