package matmul

import "golang.org/x/sys/cpu"

// available reports whether this machine runs the kernels of i. x/sys/cpu does
// not report F16C; no processor has AVX2 and FMA without it.
func (i ISA) available() bool {
	switch i {
	case Generic:
		return true
	case AVX2:
		return cpu.X86.HasAVX2 && cpu.X86.HasFMA
	case AVX512:
		return cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL &&
			cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VNNI
	default:
		return false
	}
}
