// Package cudadrv is the part of the CUDA driver API that the runtime needs:
// gorgonia.org/cu for contexts, modules, memory, streams, events and copies, and
// a small cgo extension on its handles for what that lacks (pinned memory,
// dynamic shared memory above 48 KiB, launches that overlap, stream capture and
// graphs, names of errors), and cuBLASLt, found at run time.
//
// Everything that touches the driver is behind the build tag cuda; without it the
// package holds its errors only. The binary of a tagged build needs libcuda.so.1
// to start. It needs no other CUDA library to link.
//
// A CUDA context is current on an OS thread. [Context.Enter] ties the calling
// goroutine to its thread and makes the context current there; everything else
// must happen between Enter and the function that it returns.
package cudadrv
