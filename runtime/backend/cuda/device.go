//go:build cuda

package cuda

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Device is a model loaded on a GPU. It implements backend.Device.
type Device struct {
	cfg  model.Config
	opts backend.Options

	ctx     *cudadrv.Context
	shapes  cudakernels.Device // what launch shapes depend on
	stream  *cudadrv.Stream
	modules []*cudadrv.Module
	kernels map[string]*cudadrv.Function
	overlap bool // kernels may start before the one ahead of them is done

	arena      *cudadrv.Arena // weights and buffers
	weights    deviceWeights
	buffers    buffers
	inputs     inputLayout
	flights    [2]*flight
	hostLogits hostLogits
	tables     backend.PageTables
	rules      ruleStore
	products   products
	graphs     map[shape]*graph
	rowCosts   []time.Duration // see RowCosts

	pool  *pool
	order order // of the step begun latest
	// begun and ended count steps. Step n is flights[n%2].
	begun, ended uint
	lost         error // set once the device is beyond use
	dirty        bool  // a step failed half-way: workspaces must be reset
}

var (
	_ backend.Ahead       = (*Device)(nil)
	_ backend.Warmer      = (*Device)(nil)
	_ backend.RowMultiple = (*Device)(nil)
	_ backend.RowCosts    = (*Device)(nil)
	_ backend.MemoryMeter = (*Device)(nil)
)

// load makes everything that lives as long as the device.
func (d *Device) load(ctx context.Context, m *model.Model, src weights.Source) error {
	p := d.ctx.Properties()
	if p.Major < 8 {
		return fmt.Errorf("%w: %v; 8.0 or newer is needed", backend.ErrNotSupported, p)
	}
	d.shapes = cudakernels.Device{Major: p.Major, Minor: p.Minor, SMs: p.SMs, SharedPerSM: p.SharedPerSM, SharedPerBlock: p.SharedPerBlock}
	d.overlap = p.Major >= 9
	var err error
	if d.stream, err = d.ctx.NewStream(); err != nil {
		return err
	}
	if err := d.loadKernels(); err != nil {
		return err
	}
	if d.products.blas, err = d.ctx.NewBLAS(d.stream); err != nil {
		return err
	}
	d.products.blas.Tune = true
	d.arena = d.ctx.NewArena()
	if err := d.loadWeights(ctx, m, src); err != nil {
		return err
	}
	if err := d.makeBuffers(); err != nil {
		return err
	}
	return d.stream.Wait()
}

func (d *Device) loadKernels() error {
	d.kernels = make(map[string]*cudadrv.Function)
	for _, k := range cudakernels.Modules() {
		m, err := d.ctx.LoadModule(k.Image)
		if err != nil {
			return fmt.Errorf("module %s: %w", k.Name, err)
		}
		d.modules = append(d.modules, m)
		for _, f := range k.Kernels {
			if d.kernels[f.Name], err = m.Function(f.Name); err != nil {
				return fmt.Errorf("module %s: %w", k.Name, err)
			}
		}
	}
	return nil
}

// args is the pointer to the argument struct T of a kernel.
type args[T any] interface {
	*T
	cudakernels.Args
}

// launch adds a kernel to the stream. It may overlap with the kernel before it
// when it reads nothing of that one's before it waits.
func launch[T any, P args[T]](d *Device, a P, overlap bool) error {
	f := d.kernels[a.Kernel()]
	if f == nil {
		return fmt.Errorf("there is no kernel %s", a.Kernel())
	}
	s := a.Shape(d.shapes)
	return f.Launch(d.stream, cudadrv.Launch{
		Grid: [3]uint32{s.GridX, s.GridY, s.GridZ}, Threads: s.Threads, Shared: s.Shared, Overlap: overlap && d.overlap,
	}, unsafe.Pointer(a), int(unsafe.Sizeof(*a)/8))
}

// Describe names the GPU and the library of the dense products.
func (d *Device) Describe() string {
	v := d.products.blas.Version()
	return fmt.Sprintf("cuda (%v, cuBLASLt %d.%d)", d.ctx.Properties(), v/10000, v/100%100)
}

// PageBytes returns the size of one KV page.
func (d *Device) PageBytes() int { return cudakernels.PageBytes(d.pageType(), d.cfg.HeadDim) }

// FreeMemory returns the bytes of the GPU that nobody uses; 0 when the driver does
// not answer.
func (d *Device) FreeMemory() int64 {
	leave, err := d.ctx.Enter()
	if err != nil {
		return 0
	}
	defer leave()
	n, err := d.ctx.Free()
	if err != nil {
		return 0
	}
	return n
}

// Close frees everything on the device.
func (d *Device) Close() error {
	leave, err := d.ctx.Enter()
	if err != nil {
		return err
	}
	defer leave()
	var errs []error
	if d.pool != nil {
		errs = append(errs, d.pool.close())
	}
	errs = append(errs, d.dropGraphs(), d.products.close())
	for _, f := range d.flights {
		errs = append(errs, f.close())
	}
	errs = append(errs, d.hostLogits.close())
	if d.rules.staging != nil {
		errs = append(errs, d.rules.staging.Free())
	}
	if d.arena != nil {
		errs = append(errs, d.arena.Free())
	}
	for _, m := range d.modules {
		errs = append(errs, m.Close())
	}
	if d.stream != nil {
		errs = append(errs, d.stream.Close())
	}
	return d.closed(append(errs, d.ctx.Close()))
}

// closed returns the errors of freeing things. On a lost device every call
// answers the error that the steps have reported, which says nothing new.
func (d *Device) closed(errs []error) error {
	if d.lost == nil {
		return errors.Join(errs...)
	}
	return nil
}
