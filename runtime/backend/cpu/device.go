package cpu

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/attention"
	"github.com/moaserve/moaserve/runtime/backend/cpu/hugemem"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/backend/cpu/matmul"
	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
	"github.com/moaserve/moaserve/runtime/backend/cpu/workers"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Device is a model loaded for the CPU. It implements backend.Device.
type Device struct {
	cfg  model.Config
	isa  isa.ISA
	opts backend.Options

	embedding weights.Tensor // [Vocab, Hidden], in the source's mapping
	outNorm   []float32
	output    *matmul.Matrix
	layers    []layer
	memory    hugemem.Arena // of the matrices
	ops       vec.Ops
	rope      *vec.Rope

	workers *workers.Pool
	kv      attention.Config
	pool    *pool
	tables  backend.PageTables
	pass    pass
}

var _ backend.Device = (*Device)(nil)

// pool is the KV memory and the attention over it. It implements backend.Pool.
type pool struct {
	device    *Device
	cache     *attention.Cache
	attention *attention.Attention
}

var _ backend.Pool = (*pool)(nil)

// RowMultiple tells the scheduler what the rows of a step had best be a multiple of: the
// matrix products take rows in fours and twos, and a single one is dear.
func (d *Device) RowMultiple() int { return 2 }

// Describe names the instruction set and the number of threads.
func (d *Device) Describe() string {
	return fmt.Sprintf("cpu (%v, %d threads)", d.isa, d.opts.Threads)
}

// PageBytes returns the size of one KV page.
func (d *Device) PageBytes() int { return d.kv.PageBytes() }

// NewPool allocates the KV pages. The memory is mapped now and resident only
// once it is written.
func (d *Device) NewPool(pages int) (backend.Pool, error) {
	if d.pool != nil {
		return nil, errors.New("cpu: the device has a pool already")
	}
	cache, err := attention.NewCache(d.kv, pages)
	if err != nil {
		return nil, fmt.Errorf("cpu: allocating %d KV pages of %d bytes: %w", pages, d.PageBytes(), err)
	}
	d.pool = &pool{device: d, cache: cache, attention: attention.New(cache, d.workers)}
	return d.pool, nil
}

// Pages returns the number of pages.
func (p *pool) Pages() int { return p.cache.Pages() }

// Close frees the pages.
func (p *pool) Close() error {
	if p.device.pool != p {
		return nil
	}
	p.device.pool = nil
	return p.cache.Close()
}

// Close stops the workers and frees the pool and the weights.
func (d *Device) Close() error {
	var err error
	if d.pool != nil {
		err = d.pool.Close()
	}
	d.workers.Close()
	return errors.Join(err, d.memory.Free())
}
