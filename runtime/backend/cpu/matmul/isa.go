package matmul

// ISA is an instruction set that kernels exist for. Higher values are faster.
type ISA uint8

// The instruction sets.
const (
	// Generic is plain Go. It runs everywhere.
	Generic ISA = iota
	// AVX2 needs AVX2, FMA and F16C (every x86-64-v3 processor).
	AVX2
	// AVX512 needs AVX-512 F, BW, VL, DQ and VNNI (Ice Lake, Zen 4).
	AVX512
)

// String returns "generic", "avx2" or "avx512".
func (i ISA) String() string {
	switch i {
	case AVX2:
		return "avx2"
	case AVX512:
		return "avx512"
	default:
		return "generic"
	}
}

// Detect returns the best instruction set of this machine.
func Detect() ISA {
	for isa := AVX512; isa > Generic; isa-- {
		if isa.available() {
			return isa
		}
	}
	return Generic
}
