//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"time"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/weights"
)

var (
	_ backend.WeightReader   = (*Device)(nil)
	_ backend.BandwidthMeter = (*Device)(nil)
)

// WeightBytes returns the bytes of weights that a decode step of that many sequences
// reads.
func (d *Device) WeightBytes(sequences int) int64 {
	const elementBytes = 2 // of the embedding
	return d.weights.bytes + int64(sequences)*int64(d.cfg.Hidden)*elementBytes
}

const (
	// bandwidthBytes is read at a time: some dozens of times what the caches hold, and
	// long enough that the start of the kernel does not count.
	bandwidthBytes = 4 << 30
	// leastBandwidthBytes still is several times the largest cache.
	leastBandwidthBytes = 512 << 20
	// bandwidthRuns are made; the fastest counts, for it is a bound.
	bandwidthRuns = 8
)

// ReadBandwidth measures how many bytes of random numbers the device reads in a
// second. It takes half of the memory that is free, at most 4 GiB.
func (d *Device) ReadBandwidth() (_ float64, err error) {
	leave, err := d.ctx.Enter()
	if err != nil {
		return 0, fmt.Errorf("cuda: %w", err)
	}
	defer leave()
	free, err := d.ctx.Free()
	if err != nil {
		return 0, fmt.Errorf("cuda: %w", err)
	}
	size := min(bandwidthBytes, free/2) &^ 0xff
	if size < leastBandwidthBytes {
		return 0, fmt.Errorf("cuda: %d MiB of device memory are free; measuring its bandwidth takes %d MiB", free>>20, 2*leastBandwidthBytes>>20)
	}
	m, err := d.ctx.Alloc(size)
	if err != nil {
		return 0, fmt.Errorf("cuda: %w", err)
	}
	defer func() { err = errors.Join(err, m.Free()) }()
	const sumBytes = 4 * cudakernels.ReadSums // at the end
	read := &cudakernels.ReadMemory{Data: cudakernels.Ptr(m.Ptr()), Bytes: size - sumBytes, Sums: cudakernels.Ptr(m.Ptr()) + cudakernels.Ptr(size-sumBytes)}
	if err := d.generate(m.Ptr(), &weights.Generated{Key: 1, Scale: 1}, 0, int(size/2)); err != nil {
		return 0, fmt.Errorf("cuda: %w", err)
	}
	fastest := time.Duration(0)
	for range bandwidthRuns {
		took, err := d.stream.Time(func() error { return launch(d, read, false) })
		if err != nil {
			return 0, fmt.Errorf("cuda: measuring the memory's bandwidth: %w", err)
		}
		if fastest == 0 || took < fastest {
			fastest = took
		}
	}
	return float64(read.Bytes) / fastest.Seconds(), nil
}
