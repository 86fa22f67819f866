//go:build cuda

package cudadrv

import (
	"errors"
	"fmt"
	"runtime"

	"gorgonia.org/cu"
)

// Properties are what programs choose their shapes by.
type Properties struct {
	Name           string
	Major, Minor   int   // compute capability
	SMs            int   // multiprocessors
	SharedPerSM    int   // bytes of shared memory of a multiprocessor
	SharedPerBlock int   // bytes that a thread block may opt in to
	Memory         int64 // bytes
	Driver         int   // CUDA version of the driver: 13000 is 13.0
}

// String describes the device in one line.
func (p Properties) String() string {
	return fmt.Sprintf("%s, compute capability %d.%d, %d GiB, driver for CUDA %d.%d",
		p.Name, p.Major, p.Minor, p.Memory>>30, p.Driver/1000, p.Driver%1000/10)
}

// Context is a CUDA context on one device.
type Context struct {
	ctx   cu.CUContext
	props Properties
}

// maxSharedPerBlockOptIn is CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
// which the binding has no name for.
const maxSharedPerBlockOptIn cu.DeviceAttribute = 97

// NewContext makes a context on the device of that number.
func NewContext(ordinal int) (*Context, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return nil, check(fmt.Sprintf("cuDeviceGet(%d)", ordinal), err)
	}
	c := &Context{}
	if c.props, err = properties(dev); err != nil {
		return nil, err
	}
	// Blocking would save a core while the host waits, and cost 50 us a step.
	if c.ctx, err = dev.MakeContext(cu.SchedSpin); err != nil {
		return nil, check("cuCtxCreate", err)
	}
	return c, nil
}

func properties(dev cu.Device) (p Properties, err error) {
	if p.Name, err = dev.Name(); err != nil {
		return p, check("cuDeviceGetName", err)
	}
	if p.Memory, err = dev.TotalMem(); err != nil {
		return p, check("cuDeviceTotalMem", err)
	}
	for _, a := range []struct {
		to   *int
		attr cu.DeviceAttribute
	}{
		{&p.Major, cu.ComputeCapabilityMajor}, {&p.Minor, cu.ComputeCapabilityMinor}, {&p.SMs, cu.MultiprocessorCount},
		{&p.SharedPerSM, cu.MaxSharedMemoryPerMultiprocessor}, {&p.SharedPerBlock, maxSharedPerBlockOptIn},
	} {
		if *a.to, err = dev.Attribute(a.attr); err != nil {
			return p, check("cuDeviceGetAttribute", err)
		}
	}
	p.Driver = cu.Version()
	return p, nil
}

// Properties returns what the device is.
func (c *Context) Properties() Properties { return c.props }

// Enter ties the goroutine to its OS thread and makes the context current there,
// until leave is called.
func (c *Context) Enter() (leave func(), err error) {
	runtime.LockOSThread()
	if err := cu.SetCurrentContext(c.ctx); err != nil {
		runtime.UnlockOSThread()
		return nil, check("cuCtxSetCurrent", err)
	}
	return runtime.UnlockOSThread, nil
}

// Free returns the free bytes of the device.
func (c *Context) Free() (int64, error) {
	free, _, err := cu.MemInfo()
	return free, check("cuMemGetInfo", err)
}

// Close destroys the context and everything that was made in it.
func (c *Context) Close() error {
	leave, err := c.Enter()
	if err != nil {
		return err
	}
	defer leave()
	err = check("cuCtxSynchronize", cu.Synchronize())
	return errors.Join(err, check("cuCtxDestroy", c.ctx.Destroy()))
}
