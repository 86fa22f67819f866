// Package storetest holds the conformance suite of planstore.Store: every
// implementation passes it.
package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/moaserve/moaserve/planstore"
	"github.com/moaserve/moaserve/runtime/plan"
)

// model and other are models of different dimensions.
var (
	model = plan.Shape{Layers: 2, QueryHeads: 4, KVHeads: 2, HeadDim: 64, Context: 8192}
	other = plan.Shape{Layers: 3, QueryHeads: 4, KVHeads: 2, HeadDim: 64, Context: 8192}
)

func half(m plan.Shape, beta float64) *plan.Plan {
	return plan.Uniform("half", m, plan.Rule{Beta: beta})
}

// Run tests stores that open makes; each is empty.
func Run(t *testing.T, open func(t *testing.T) planstore.Store) {
	t.Run("a name points to the latest version", func(t *testing.T) {
		s := open(t)
		first := put(t, s, half(model, 0.5))
		second := put(t, s, half(model, 0.25))
		if first == second {
			t.Fatal("two plans have one version")
		}
		want(t, s, model, "half", 0.25)
		want(t, s, model, "half@"+string(first), 0.5)
		want(t, s, model, "half@"+string(first[:8]), 0.5)
		// Going back is putting the old one again.
		if again := put(t, s, half(model, 0.5)); again != first {
			t.Errorf("the same plan has version %s and %s", first, again)
		}
		want(t, s, model, "half", 0.5)
		want(t, s, model, "half@"+string(second), 0.25)
	})
	t.Run("what is not there is not found", func(t *testing.T) {
		s := open(t)
		v := put(t, s, half(model, 0.5))
		for _, c := range []struct {
			m   plan.Shape
			ref string
		}{{model, "none"}, {other, "half"}, {model, "half@" + string(v[:7])}, {model, "half@00000000"}, {model, "none@" + string(v)}, {model, ""}} {
			if p, err := s.Get(t.Context(), c.m, c.ref); !errors.Is(err, planstore.ErrNotFound) {
				t.Errorf("%q for %d layers gives %v, %v; want ErrNotFound", c.ref, c.m.Layers, p, err)
			}
		}
	})
	t.Run("a list has a model's names once, densest first", func(t *testing.T) {
		s := open(t)
		put(t, s, plan.Uniform("thin", model, plan.Rule{Beta: 0.125}))
		put(t, s, half(model, 0.5))
		put(t, s, half(other, 0.5))
		put(t, s, half(model, 0.4))
		put(t, s, plan.NewDense(model))
		list, err := s.List(t.Context(), model)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, p := range list {
			got += fmt.Sprintf("%s %v, ", p.Name, p.Rules[0].Beta)
		}
		if got != "dense 1, half 0.4, thin 0.125, " {
			t.Errorf("the list is %s", got)
		}
		if list, err := s.List(t.Context(), plan.Shape{Layers: 9}); err != nil || len(list) != 0 {
			t.Errorf("another model's list is %v, %v", list, err)
		}
	})
	t.Run("weights are told apart by their hash", func(t *testing.T) {
		s := open(t)
		a, b := model, model
		a.WeightsSHA256, b.WeightsSHA256 = fmt.Sprintf("%064x", 1), fmt.Sprintf("%064x", 2)
		put(t, s, half(a, 0.5))
		put(t, s, half(b, 0.25))
		want(t, s, a, "half", 0.5)
		want(t, s, b, "half", 0.25)
	})
	t.Run("a plan without a name is refused", func(t *testing.T) {
		if _, err := open(t).Put(t.Context(), plan.Uniform("", model, plan.Dense)); err == nil {
			t.Error("it is kept")
		}
	})
	t.Run("many may use it at once", func(t *testing.T) {
		s := open(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				p := plan.Uniform(fmt.Sprintf("plan-%d", i), model, plan.Rule{Beta: 0.5})
				for range 50 {
					if _, err := s.Put(t.Context(), p); err != nil {
						t.Error(err)
					}
					if got, err := s.Get(t.Context(), model, p.Name); err != nil || got.Name != p.Name {
						t.Errorf("%s: %v, %v", p.Name, got, err)
					}
				}
			})
		}
		wg.Wait()
		if list, err := s.List(t.Context(), model); err != nil || len(list) != 8 {
			t.Errorf("%d plans, %v", len(list), err)
		}
	})
}

func put(t *testing.T, s planstore.Store, p *plan.Plan) planstore.Version {
	t.Helper()
	v, err := s.Put(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func want(t *testing.T, s planstore.Store, m plan.Shape, ref string, beta float64) {
	t.Helper()
	p, err := s.Get(t.Context(), m, ref)
	if err != nil {
		t.Fatal(err)
	}
	if p.Rules[0].Beta != beta {
		t.Errorf("%s is the plan with beta %v, want %v", ref, p.Rules[0].Beta, beta)
	}
}
