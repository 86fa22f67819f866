//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/plan"
)

// ruleStore keeps the rules of the plans in use on the device, one rule a head,
// so that spans are computed where they are needed.
type ruleStore struct {
	device   cudakernels.Ptr // Rule [plans][heads]
	heads    int
	capacity int                     // plans
	places   map[*plan.Plan]int      // plans are immutable
	staging  *cudadrv.Pinned         // rules of one plan
	rules    []cudakernels.Rule      // the same memory
	fresh    map[*plan.Plan]struct{} // scratch
}

// minPlans is room for the plans of a server and of a few imports at least.
const minPlans = 16

func (r *ruleStore) init(d *Device, heads int) error {
	r.heads, r.capacity = heads, max(minPlans, d.opts.MaxSequences)
	r.places = make(map[*plan.Plan]int)
	r.fresh = make(map[*plan.Plan]struct{})
	const ruleBytes = 16
	p, err := d.arena.Alloc(int64(r.capacity * heads * ruleBytes))
	if err != nil {
		return err
	}
	r.device = cudakernels.Ptr(p)
	if r.staging, err = d.ctx.NewPinned(heads * ruleBytes); err != nil {
		return err
	}
	r.rules = cudadrv.PinnedSlice[cudakernels.Rule](r.staging, 0, heads)
	return nil
}

// index returns where the rules of a sequence begin, once place has seen it.
func (r *ruleStore) index(l *plan.Layout) int32 { return int32(r.places[l.Plan()] * r.heads) }

// place makes sure that the rules of every sequence's plan are on the device.
func (r *ruleStore) place(d *Device, seqs []backend.Seq) error {
	clear(r.fresh)
	for _, s := range seqs {
		if _, ok := r.places[s.Layout.Plan()]; !ok {
			r.fresh[s.Layout.Plan()] = struct{}{}
		}
	}
	if len(r.fresh) == 0 {
		return nil
	}
	if len(r.places)+len(r.fresh) > r.capacity {
		// Old plans go: there is room for one of every sequence.
		clear(r.places)
		clear(r.fresh)
		for _, s := range seqs {
			r.fresh[s.Layout.Plan()] = struct{}{}
		}
	}
	for p := range r.fresh {
		if err := r.upload(d, p, len(r.places)); err != nil {
			return fmt.Errorf("uploading the rules of plan %q: %w", p.Name, err)
		}
		r.places[p] = len(r.places)
	}
	return nil
}

func (r *ruleStore) upload(d *Device, p *plan.Plan, place int) error {
	i := 0
	for _, layer := range p.Heads {
		for _, rule := range layer {
			if i < len(r.rules) {
				r.rules[i] = cudakernels.Rule{Alpha: float64(p.Rules[rule].Alpha), Beta: p.Rules[rule].Beta}
			}
			i++
		}
	}
	if i != r.heads {
		return fmt.Errorf("it is for %d heads, the model has %d", i, r.heads)
	}
	at := cudadrv.Ptr(r.device) + cudadrv.Ptr(place*r.staging.Len())
	return errors.Join(d.stream.Upload(at, r.staging, 0, r.staging.Len()), d.stream.Wait())
}
