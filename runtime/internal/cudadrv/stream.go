//go:build cuda

package cudadrv

import (
	"errors"
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// Stream is a queue of work for the device.
type Stream struct{ s cu.Stream }

// NewStream makes a stream that does not wait for the default stream.
func (c *Context) NewStream() (*Stream, error) {
	s, err := cu.MakeStream(cu.NonBlocking)
	if err != nil {
		return nil, check("cuStreamCreate", err)
	}
	return &Stream{s}, nil
}

// Close destroys the stream.
func (s *Stream) Close() error { return check("cuStreamDestroy", s.s.Destroy()) }

// Wait blocks until everything in the stream is done. It reports errors of the
// kernels before it.
func (s *Stream) Wait() error { return check("cuStreamSynchronize", s.s.Synchronize()) }

// Upload copies n bytes of pinned memory from offset on to the device. The memory
// must stay as it is until the copy is done.
func (s *Stream) Upload(dst Ptr, src *Pinned, offset, n int) error {
	if n == 0 {
		return nil
	}
	b := src.Bytes()[offset : offset+n]
	return check("cuMemcpyHtoDAsync", cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(unsafe.SliceData(b)), int64(n), s.s))
}

// Download copies n bytes of device memory to pinned memory from offset on. They
// are there once the stream was waited for.
func (s *Stream) Download(dst *Pinned, offset int, src Ptr, n int) error {
	if n == 0 {
		return nil
	}
	b := dst.Bytes()[offset : offset+n]
	return check("cuMemcpyDtoHAsync", cu.MemcpyDtoHAsync(unsafe.Pointer(unsafe.SliceData(b)), cu.DevicePtr(src), int64(n), s.s))
}

// Fill sets n bytes of device memory to v.
func (s *Stream) Fill(dst Ptr, v byte, n int64) error {
	return check("cuMemsetD8Async", cu.MemsetD8Async(cu.DevicePtr(dst), v, n, s.s))
}

// Graph is recorded work, ready to be launched as a whole.
type Graph struct{ exec graphExec }

// Capture records what f adds to the stream, without running it. Until f
// returns, the calling thread must not wait for the device, nor allocate.
func (s *Stream) Capture(f func() error) (*Graph, error) {
	if err := beginCapture(s.s); err != nil {
		return nil, err
	}
	err := f()
	exec, endErr := endCapture(s.s)
	if err = errors.Join(err, endErr); err != nil {
		if endErr == nil {
			err = errors.Join(err, exec.destroy())
		}
		return nil, fmt.Errorf("recording a graph: %w", err)
	}
	return &Graph{exec}, nil
}

// Launch adds the graph to a stream.
func (g *Graph) Launch(s *Stream) error { return g.exec.launch(s.s) }

// Close destroys the graph.
func (g *Graph) Close() error { return g.exec.destroy() }
