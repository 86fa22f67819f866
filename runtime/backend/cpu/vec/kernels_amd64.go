package vec

// The kernels work on whole vectors: n is a multiple of 8.

// sumSquaresAVX2 returns the sum of x*x over n elements and the tail.
//
//go:noescape
func sumSquaresAVX2(x *float32, n int, tail *[lanes]float32) float32

// scaleMulAVX2 writes x * scale * w.
//
//go:noescape
func scaleMulAVX2(dst, x, w *float32, n int, scale float32)

// siluMulAVX2 writes gate / (1 + exp(-gate)) * up.
//
//go:noescape
func siluMulAVX2(dst, gate, up *float32, n int)

// addAVX2 adds x to dst.
//
//go:noescape
func addAVX2(dst, x *float32, n int)

// scaledExpAVX2 writes exp((x - shift) * scale).
//
//go:noescape
func scaledExpAVX2(dst, x *float32, n int, scale, shift float32)

//go:noescape
func toF16AVX2(dst *uint16, src *float32, n int)

//go:noescape
func fromF16AVX2(dst *float32, src *uint16, n int)

//go:noescape
func toBF16AVX2(dst *uint16, src *float32, n int)

//go:noescape
func fromBF16AVX2(dst *float32, src *uint16, n int)

// rotateInterleavedAVX2 rotates the pairs (2i, 2i+1) of x; pairs is a multiple
// of 4.
//
//go:noescape
func rotateInterleavedAVX2(x, cos, sin *float32, pairs int)

// rotateHalvesAVX2 rotates the pairs (i, i+pairs) of x; pairs is a multiple of 8.
//
//go:noescape
func rotateHalvesAVX2(x, cos, sin *float32, pairs int)

// largestAVX2 is genericLargest.
//
//go:noescape
func largestAVX2(x *[Q8Block]float32) uint32

// quantiseAVX2 is genericQuantise, for a finite x and a positive scale.
//
//go:noescape
func quantiseAVX2(codes *[Q8Block]int8, x *[Q8Block]float32, scale float32)
