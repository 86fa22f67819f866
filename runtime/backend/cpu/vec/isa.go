// Package vec holds the element-wise kernels of the CPU backend: normalisation,
// rotation, activation and 16-bit conversion.
//
// A result depends on the values alone: not on where a slice begins, on the
// place of an element in it, or on the rows beside it. Different instruction
// sets may differ in the last bits.
package vec

import "fmt"

// ISA names an instruction set that kernels exist for.
type ISA uint8

// The instruction sets. AVX2 includes FMA and F16C; AVX512 is F, BW, DQ and VL.
const (
	Auto ISA = iota // the best one that the processor has
	Generic
	AVX2
	AVX512
)

var isaNames = [...]string{Auto: "auto", Generic: "generic", AVX2: "avx2", AVX512: "avx512"}

var _ fmt.Stringer = Auto

// String returns the name in lower case.
func (i ISA) String() string {
	if int(i) < len(isaNames) {
		return isaNames[i]
	}
	return fmt.Sprintf("isa(%d)", uint8(i))
}

// Available reports whether this processor can run the instruction set.
func (i ISA) Available() bool { return i <= best() }

// Resolve replaces Auto, and whatever is not available, by the best instruction
// set that is.
func (i ISA) Resolve() ISA {
	if i == Auto || !i.Available() {
		return best()
	}
	return i
}
