//go:build !amd64

package vec

// Never called: Ops.avx2 is false on these processors.

func sumSquaresAVX2(x *float32, n int, tail *[lanes]float32) float32 { panic(noAVX2) }
func scaleMulAVX2(dst, x, w *float32, n int, scale float32)          { panic(noAVX2) }
func siluMulAVX2(dst, gate, up *float32, n int)                      { panic(noAVX2) }
func addAVX2(dst, x *float32, n int)                                 { panic(noAVX2) }
func scaledExpAVX2(dst, x *float32, n int, scale, shift float32)     { panic(noAVX2) }
func toF16AVX2(dst *uint16, src *float32, n int)                     { panic(noAVX2) }
func fromF16AVX2(dst *float32, src *uint16, n int)                   { panic(noAVX2) }
func toBF16AVX2(dst *uint16, src *float32, n int)                    { panic(noAVX2) }
func fromBF16AVX2(dst *float32, src *uint16, n int)                  { panic(noAVX2) }
func rotateInterleavedAVX2(x, cos, sin *float32, pairs int)          { panic(noAVX2) }
func rotateHalvesAVX2(x, cos, sin *float32, pairs int)               { panic(noAVX2) }
func largestAVX2(x *[Q8Block]float32) uint32                         { panic(noAVX2) }
func quantiseAVX2(codes *[Q8Block]int8, x *[Q8Block]float32, scale float32) {
	panic(noAVX2)
}

const noAVX2 = "vec: AVX2 kernel on a processor without AVX2"
