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
}

// multiply adds y[m][n] = x[m][k] w[n][k]^T to the stream.
func (p *products) multiply(shape cudadrv.ProductShape, w, x, y cudakernels.Ptr) error {
	prepared, ok := p.made[shape]
	if !ok {
		var err error
		if prepared, err = p.blas.NewProduct(shape); err != nil {
			return err
		}
		if p.made == nil {
			p.made = make(map[cudadrv.ProductShape]*cudadrv.Product)
		}
		p.made[shape] = prepared
	}
	return prepared.Run(cudadrv.Ptr(w), cudadrv.Ptr(x), cudadrv.Ptr(y))
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
