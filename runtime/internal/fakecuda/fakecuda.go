//go:build cuda

package fakecuda

/*
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

static void *moaFake(const char *name) { return dlsym(RTLD_DEFAULT, name); }
static void moaFakeFail(void *f, const char *call, int skip, int code) { ((void (*)(const char *, int, int))f)(call, skip, code); }
static long moaFakeCount(void *f, const char *what) { return ((long (*)(const char *))f)(what); }
*/
import "C"

import "unsafe"

// Present reports whether the process runs on the fake driver.
func Present() bool { return symbol("fakecuda_fail") != nil }

// Fail lets a call of the driver, a kernel ("kernel:sample") or a product
// ("cublasLtMatmul") answer a code once, after it succeeded skip times. From a
// sticky code on, everything fails until Reset.
func Fail(call string, skip, code int) {
	s := C.CString(call)
	defer C.free(unsafe.Pointer(s))
	C.moaFakeFail(symbol("fakecuda_fail"), s, C.int(skip), C.int(code))
}

// Reset makes everything succeed again and sets all counts of calls to 0.
func Reset() { Fail("", 0, 0) }

// Count returns how often a call succeeded since Reset; a kernel counts when it
// runs. Two names count otherwise: "memory" is the allocations that are alive,
// device and pinned, and "bytes" those of the device in bytes.
func Count(call string) int {
	s := C.CString(call)
	defer C.free(unsafe.Pointer(s))
	return int(C.moaFakeCount(symbol("fakecuda_count"), s))
}

func symbol(name string) unsafe.Pointer {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return C.moaFake(s)
}
