//go:build cuda

package cuda

import (
	"errors"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// products keeps the prepared dense products, by shape.
type products struct {
	blas *cudadrv.BLAS
	made map[cudadrv.ProductShape]*cudadrv.Product
	fp8  fp8
	// library has cuBLASLt multiply few rows, too.
	library bool
}

// multiply adds y[m][n] = x[m][k] w[n][k]^T of bfloat16 matrices to the stream.
func (p *products) multiply(shape cudadrv.ProductShape, w, x, y cudakernels.Ptr) error {
	prepared, err := p.prepare(shape)
	if err != nil {
		return err
	}
	return prepared.Run(cudadrv.Ptr(w), cudadrv.Ptr(x), cudadrv.Ptr(y))
}

// prepare returns the product of a shape, made when it is first asked for.
func (p *products) prepare(shape cudadrv.ProductShape) (*cudadrv.Product, error) {
	if prepared, ok := p.made[shape]; ok {
		return prepared, nil
	}
	prepared, err := p.blas.NewProduct(shape)
	if err != nil {
		return nil, err
	}
	if p.made == nil {
		p.made = make(map[cudadrv.ProductShape]*cudadrv.Product)
	}
	p.made[shape] = prepared
	return prepared, nil
}

func (p *products) close() error {
	if p.blas == nil {
		return nil
	}
	for _, prepared := range p.made {
		prepared.Close()
	}
	p.made = nil
	return errors.Join(p.blas.Close())
}
