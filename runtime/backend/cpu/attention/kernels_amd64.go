package attention

import (
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
)

//go:generate go run gen.go

func kernelsFor(set isa.ISA) *kernels {
	switch {
	case set >= isa.AVX512:
		return &avx512Kernels
	case set == isa.AVX2:
		return &avx2Kernels
	}
	return &genericKernels
}

var avx2Kernels = kernels{
	f32: &avx2F32, f16: &avx2F16, bf16: &avx2BF16, softmax: softmaxAVX2, merge: mergeAVX2, scale: scaleAVX2,
	q8Keys: &avx2Q8Keys, q8Values: &avx2Q8Values, widenKeys: widenKeysAVX2, widenValues: widenValuesAVX2,
}

// Merging and scaling are a hundredth of the time: AVX2 will do. So it does for
// pages in q8_0.
var avx512Kernels = kernels{
	f32: &avx512F32, f16: &avx512F16, bf16: &avx512BF16, softmax: softmaxAVX512, merge: mergeAVX2, scale: scaleAVX2,
	q8Keys: &avx2Q8Keys, q8Values: &avx2Q8Values, widenKeys: widenKeysAVX2, widenValues: widenValuesAVX2,
}

//go:noescape
func softmaxAVX2(x *softmax)

//go:noescape
func softmaxAVX512(x *softmax)

//go:noescape
func mergeAVX2(x *merge)

//go:noescape
func scaleAVX2(dst, src *float32, n int, s float32)

//go:noescape
func widenKeysAVX2(dst *float32, codes *int8, scales *uint16, k int)

//go:noescape
func widenValuesAVX2(dst *float32, codes *int8, scales *uint16)
