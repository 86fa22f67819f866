//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// pool is the KV memory: one allocation, an array of pages.
type pool struct {
	device  *Device
	memory  *cudadrv.Memory
	pages   int
	staging *cudadrv.Pinned // one page, made when pages are first copied
}

var (
	_ backend.Pool   = (*pool)(nil)
	_ backend.PageIO = (*pool)(nil)
)

// NewPool allocates the KV pages, all of them now, and zeroes them.
func (d *Device) NewPool(pages int) (backend.Pool, error) {
	if d.pool != nil {
		return nil, errors.New("cuda: the device has a pool already")
	}
	if pages < 1 {
		return nil, fmt.Errorf("cuda: a pool of %d pages", pages)
	}
	leave, err := d.ctx.Enter()
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	defer leave()
	size := int64(pages) * int64(d.PageBytes())
	m, err := d.ctx.Alloc(size)
	if err != nil {
		return nil, fmt.Errorf("cuda: %d KV pages of %d bytes: %w", pages, d.PageBytes(), err)
	}
	if err := errors.Join(d.stream.Fill(m.Ptr(), 0, size), d.stream.Wait()); err != nil {
		return nil, errors.Join(fmt.Errorf("cuda: zeroing the KV pages: %w", err), m.Free())
	}
	d.pool = &pool{device: d, memory: m, pages: pages}
	return d.pool, nil
}

// Pages returns the number of pages.
func (p *pool) Pages() int { return p.pages }

// Close frees the pages, and the graphs that know where they are.
func (p *pool) Close() error {
	if p.device.pool != p {
		return nil
	}
	leave, err := p.device.ctx.Enter()
	if err != nil {
		return err
	}
	defer leave()
	return p.close()
}

func (p *pool) close() error {
	p.device.pool = nil
	errs := []error{p.device.dropGraphs(), p.memory.Free()}
	if p.staging != nil {
		errs = append(errs, p.staging.Free())
	}
	return p.device.closed(errs)
}

// Format names the layout of a page and what is rounded on the way to it. The
// architecture counts: it decides which products and kernels compute the pages.
func (p *pool) Format() string {
	d := p.device
	kv := d.opts.KV.String()
	if d.opts.KV == backend.KVFP8 {
		kv += " (Hadamard keys)"
	}
	return fmt.Sprintf("cuda %s, %s pages of %d bytes, compute capability %d.%d", d.precision(), kv, d.PageBytes(), d.shapes.Major, d.shapes.Minor)
}

// pageType is the form of the pages.
func (d *Device) pageType() cudakernels.PageType {
	if d.opts.KV == backend.KVFP8 {
		return cudakernels.PagesFP8
	}
	return cudakernels.PagesBF16
}

// ReadPage copies a page to the host.
func (p *pool) ReadPage(page int32, dst []byte) error {
	return p.copyPage(page, dst, func(at cudadrv.Ptr) error {
		err := errors.Join(p.device.stream.Download(p.staging, 0, at, len(dst)), p.device.stream.Wait())
		copy(dst, p.staging.Bytes())
		return err
	})
}

// WritePage copies a page from the host.
func (p *pool) WritePage(page int32, src []byte) error {
	return p.copyPage(page, src, func(at cudadrv.Ptr) error {
		copy(p.staging.Bytes(), src)
		return errors.Join(p.device.stream.Upload(at, p.staging, 0, len(src)), p.device.stream.Wait())
	})
}

func (p *pool) copyPage(page int32, b []byte, do func(at cudadrv.Ptr) error) error {
	size := p.device.PageBytes()
	if page < 0 || int(page) >= p.pages || len(b) != size {
		return fmt.Errorf("cuda: page %d of %d with %d bytes of %d", page, p.pages, len(b), size)
	}
	leave, err := p.device.ctx.Enter()
	if err != nil {
		return fmt.Errorf("cuda: %w", err)
	}
	defer leave()
	if p.staging == nil {
		if p.staging, err = p.device.ctx.NewPinned(size); err != nil {
			return fmt.Errorf("cuda: %w", err)
		}
	}
	if err := do(p.memory.Ptr() + cudadrv.Ptr(page)*cudadrv.Ptr(size)); err != nil {
		return fmt.Errorf("cuda: copying page %d: %w", page, err)
	}
	return nil
}
