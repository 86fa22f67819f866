// Package fakecuda controls the CUDA driver for tests: a shared library
// (testdata/fakecuda.c) with the parts of libcuda.so.1 and of cuBLASLt that the
// runtime calls. Device memory is host memory, and the kernels are plain C that
// follows the contract of package cudakernels, so a test binary that is run with
// the library in LD_LIBRARY_PATH computes real answers without a GPU, and fails
// where it is told to. Linking needs a libcuda.so.1, too; this one does.
//
// The library checks what a GPU would not tell: that workspaces are clean, that
// kernels which must not overlap do not, that nothing is freed twice or left.
package fakecuda
