// Package isa names the instruction sets that the CPU backend's kernels are
// written for and finds out which of them this processor has.
package isa

import "fmt"

// ISA is an instruction set. Higher values are faster.
type ISA uint8

// The instruction sets.
const (
	Auto    ISA = iota // the best one that the processor has
	Generic            // plain Go, everywhere
	AVX2               // AVX2, FMA and F16C (every x86-64-v3 processor)
	AVX512             // AVX-512 F, BW, DQ, VL and VNNI (Ice Lake, Zen 4)
)

var names = [...]string{Auto: "auto", Generic: "generic", AVX2: "avx2", AVX512: "avx512"}

// String returns the name in lower case.
func (i ISA) String() string {
	if int(i) < len(names) {
		return names[i]
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

// All returns the instruction sets of this processor, the slowest first.
func All() []ISA {
	var all []ISA
	for i := Generic; i <= best(); i++ {
		all = append(all, i)
	}
	return all
}
