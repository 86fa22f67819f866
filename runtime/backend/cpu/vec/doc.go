// Package vec holds the element-wise kernels of the CPU backend: normalisation,
// rotation, activation and 16-bit conversion.
//
// A result depends on the values alone: not on where a slice begins, on the
// place of an element in it, or on the rows beside it. Different instruction
// sets may differ in the last bits.
package vec
