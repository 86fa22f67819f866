// Package matmul multiplies activations by weight matrices on the CPU.
//
// Weights keep the precision of their file: Pack only reorders their bits, so
// that sixteen output rows lie side by side in the lanes of a vector register.
// For quantised weights the activations are quantised too, to int8 with a scale
// for each 32 values, as llama.cpp does; a block of 32 columns is then an exact
// integer dot product:
//
//	out += (scale*dot(codes, x) + minimum*sum(x)) * activation scale
//
// F16, BF16 and F32 weights are multiplied by float32 activations.
//
// The kernels are assembly for AVX2 and for AVX-512 with VNNI, written by gen.go,
// and plain Go for the rest. Work is split by the caller: Mul computes any range
// of activation rows and of tiles (16 output rows), with the same bits whatever
// the ranges.
package matmul
