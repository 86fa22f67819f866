//go:build cuda

package cudadrv

/*
#cgo LDFLAGS: -ldl
#include <cuda.h>

static CUresult moaLaunch(CUfunction f, CUstream s, const unsigned *shape, int overlap, void *args, int n) {
  void *params[64];
  CUlaunchAttribute attr;
  CUlaunchConfig c = {shape[0], shape[1], shape[2], shape[3], 1, 1, shape[4], s, &attr, overlap ? 1 : 0};
  attr.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attr.value.programmaticStreamSerializationAllowed = 1;
  for (int i = 0; i < n; i++) params[i] = (char *)args + 8 * i;
  return cuLaunchKernelEx(&c, f, params, 0);
}

static CUresult moaSetShared(CUfunction f, unsigned n) {
  return cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)n);
}

static CUresult moaEndCapture(CUstream s, CUgraphExec *e) {
  CUgraph g = 0;
  CUresult r = cuStreamEndCapture(s, &g);
  if (r) return r;
  r = cuGraphInstantiateWithFlags(e, g, 0);
  cuGraphDestroy(g);
  return r;
}
*/
import "C"

import (
	"fmt"
	"reflect"
	"unsafe"

	"gorgonia.org/cu"
)

// The binding's handles are structs around one pointer; the conversions below
// rely on that.
var (
	_ [unsafe.Sizeof(cu.Function{}) - unsafe.Sizeof(C.CUfunction(nil))]struct{}
	_ [unsafe.Sizeof(cu.Stream{}) - unsafe.Sizeof(C.CUstream(nil))]struct{}
)

func cFunction(f cu.Function) C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f)) }

func cStream(s cu.Stream) C.CUstream { return *(*C.CUstream)(unsafe.Pointer(&s)) }

// check turns a result of the binding into an *Error. The type of its codes is
// not exported, but they are the driver's.
func check(call string, err error) error {
	if err == nil {
		return nil
	}
	if v := reflect.ValueOf(err); v.Kind() == reflect.Int {
		return newError(call, C.CUresult(v.Int()))
	}
	return fmt.Errorf("%s: %w", call, err)
}

func result(call string, r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return newError(call, r)
}

func newError(call string, r C.CUresult) error {
	e := &Error{Call: call, Code: int(r)}
	var s *C.char
	if C.cuGetErrorName(r, &s) == C.CUDA_SUCCESS && s != nil {
		e.Name = C.GoString(s)
	}
	if C.cuGetErrorString(r, &s) == C.CUDA_SUCCESS && s != nil {
		e.Text = C.GoString(s)
	}
	return e
}

func hostAlloc(n int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	err := result("cuMemHostAlloc", C.cuMemHostAlloc(&p, C.size_t(n), C.CU_MEMHOSTALLOC_PORTABLE))
	return p, err
}

// maxParams is the size of moaLaunch's array.
const maxParams = 64

func launchKernel(f cu.Function, s cu.Stream, l Launch, args unsafe.Pointer, n int) error {
	if n > maxParams {
		return fmt.Errorf("%d parameters; at most %d", n, maxParams)
	}
	shape := [5]C.uint{C.uint(l.Grid[0]), C.uint(l.Grid[1]), C.uint(l.Grid[2]), C.uint(l.Threads), C.uint(l.Shared)}
	overlap := C.int(0)
	if l.Overlap {
		overlap = 1
	}
	return result("cuLaunchKernelEx", C.moaLaunch(cFunction(f), cStream(s), &shape[0], overlap, args, C.int(n)))
}

func setSharedMemory(f cu.Function, n uint32) error {
	return result("cuFuncSetAttribute", C.moaSetShared(cFunction(f), C.uint(n)))
}

// beginCapture starts recording. Other threads stay free to do what a recording
// one may not.
func beginCapture(s cu.Stream) error {
	return result("cuStreamBeginCapture", C.cuStreamBeginCapture(cStream(s), C.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
}

type graphExec struct{ e C.CUgraphExec }

func endCapture(s cu.Stream) (graphExec, error) {
	var g graphExec
	err := result("cuStreamEndCapture", C.moaEndCapture(cStream(s), &g.e))
	return g, err
}

func (g graphExec) launch(s cu.Stream) error {
	return result("cuGraphLaunch", C.cuGraphLaunch(g.e, cStream(s)))
}

func (g graphExec) destroy() error { return result("cuGraphExecDestroy", C.cuGraphExecDestroy(g.e)) }
