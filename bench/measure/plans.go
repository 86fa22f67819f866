package measure

import (
	"fmt"
	"slices"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/plan"
)

// defaultPlan is measured beside dense where it is known.
const defaultPlan = "moa-50"

// plansOf returns the plans of an engine that are to be measured. The engine was opened
// with the same ones.
func plansOf(e *runtime.Engine, specs []string) ([]*plan.Plan, error) {
	known := func(name string) *plan.Plan {
		for _, p := range e.Plans() {
			if p.Name == name {
				return p
			}
		}
		return nil
	}
	if len(specs) == 0 {
		plans := []*plan.Plan{known("dense")}
		if p := known(defaultPlan); p != nil {
			plans = append(plans, p)
		}
		return plans, nil
	}
	var plans []*plan.Plan
	config := e.Model()
	for _, spec := range specs {
		p := known(spec)
		if p == nil {
			parsed, err := plan.Parse(spec, config.Shape())
			if err != nil {
				return nil, err
			}
			if p = known(parsed.Name); p == nil {
				return nil, fmt.Errorf("the engine was opened without the plan %q", spec)
			}
		}
		if slices.Contains(plans, p) {
			return nil, fmt.Errorf("two of the plans are called %q", p.Name)
		}
		plans = append(plans, p)
	}
	return plans, nil
}
