package isa

import (
	"sync"

	"golang.org/x/sys/cpu"
)

// best is found once: CPUID leaves a virtual machine, which takes microseconds.
var best = sync.OnceValue(func() ISA {
	switch x := &cpu.X86; {
	case !x.HasAVX2 || !x.HasFMA || !hasF16C():
		return Generic
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI:
		return AVX512
	default:
		return AVX2
	}
})

// hasF16C asks CPUID leaf 1 for VCVTPH2PS and VCVTPS2PH, which x/sys/cpu does not
// report. Every processor with AVX2 has them, but emulators can leave them out.
func hasF16C() bool { return cpuid1ECX()&(1<<29) != 0 }

//go:noescape
func cpuid1ECX() uint32
