//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
)

// shape is what the launches of a step depend on besides addresses that never
// change: everything else is read from the device's memory.
type shape struct {
	rows, logits      int  // buckets; no logits when 0
	decodes, prefills bool // some sequences decode, some prefill
}

// String gives the shape for messages.
func (s shape) String() string {
	return fmt.Sprintf("step of %d rows and %d logits (decode: %t, prefill: %t)", s.rows, s.logits, s.decodes, s.prefills)
}

// recordable reports whether steps of the shape become graphs: not those so long that
// launches are hidden and memory is better spent on other things.
func (s shape) recordable() bool { return !s.prefills || s.rows <= warmMixed }

// graph is what is kept of a shape. recorded is nil until its second step.
type graph struct{ recorded *cudadrv.Graph }

// maxGraphs bounds the graphs that are kept. A graph takes about a megabyte of
// the device's memory, and a server runs in a few dozen shapes.
const maxGraphs = 256

// run adds a step to the stream. The first one of a shape is launched kernel by
// kernel, while the products choose their algorithms; the next one is recorded.
func (d *Device) run(s shape) error {
	add := func() error {
		p := pass{d: d, rows: s.rows, decodes: s.decodes, prefills: s.prefills}
		p.forward()
		if s.logits > 0 {
			p.logits(s.logits)
		}
		return p.err
	}
	if !s.recordable() {
		return add()
	}
	g, seen := d.graphs[s]
	if !seen {
		if len(d.graphs) >= maxGraphs { // one of them may be running
			if err := errors.Join(d.stream.Wait(), d.dropGraphs()); err != nil {
				return err
			}
		}
		if d.graphs == nil {
			d.graphs = make(map[shape]*graph)
		}
		if err := add(); err != nil {
			return err
		}
		d.graphs[s] = &graph{}
		return nil
	}
	if g.recorded == nil {
		recorded, err := d.stream.Capture(add)
		if err != nil {
			return err
		}
		g.recorded = recorded
	}
	return g.recorded.Launch(d.stream)
}

// dropGraphs forgets the graphs, which hold the addresses of the pool.
func (d *Device) dropGraphs() error {
	var errs []error
	for _, g := range d.graphs {
		if g.recorded != nil {
			errs = append(errs, g.recorded.Close())
		}
	}
	d.graphs = nil
	return errors.Join(errs...)
}
