package vec

import "math"

// The plain Go kernels, for processors without AVX2.

func genericSumSquares(x []float32) float32 {
	var s [4]float32
	for len(x) >= 4 {
		s[0] += x[0] * x[0]
		s[1] += x[1] * x[1]
		s[2] += x[2] * x[2]
		s[3] += x[3] * x[3]
		x = x[4:]
	}
	for i, v := range x {
		s[i] += v * v
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func genericScaleMul(dst, x, w []float32, scale float32) {
	for i := range dst {
		dst[i] = x[i] * scale * w[i]
	}
}

func genericSiLUMul(dst, gate, up []float32) {
	for i := range dst {
		g := gate[i]
		dst[i] = g / (1 + float32(math.Exp(-float64(g)))) * up[i]
	}
}

func genericAdd(dst, x []float32) {
	for i := range dst {
		dst[i] += x[i]
	}
}

func genericScaledExp(dst, x []float32, scale, shift float32) {
	for i := range dst {
		dst[i] = float32(math.Exp(float64((x[i] - shift) * scale)))
	}
}
