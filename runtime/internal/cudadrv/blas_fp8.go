//go:build cuda

package cudadrv

// SupportsFP8 reports whether the library and the device multiply e4m3 matrices
// with a scale a row: cuBLASLt 12.9 or newer on compute capability 9.0.
func (b *BLAS) SupportsFP8() bool {
	p, err := b.NewProduct(ProductShape{M: 16, N: 128, K: 128, FP8: true})
	if err != nil {
		return false
	}
	p.Close()
	return true
}
