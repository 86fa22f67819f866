package planstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/moaserve/moaserve/runtime/plan"
)

// Memory is a Store in this process, gone with it.
type Memory struct {
	mu    sync.RWMutex
	plans []stored // the latest first
}

type stored struct {
	version Version
	plan    *plan.Plan
}

var _ Store = (*Memory)(nil)

// NewMemory returns a store that holds plans, the built-in ones say.
func NewMemory(plans ...*plan.Plan) (*Memory, error) {
	s := &Memory{}
	for _, p := range plans {
		if _, err := s.Put(context.Background(), p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Put keeps a plan.
func (s *Memory) Put(_ context.Context, p *plan.Plan) (Version, error) {
	if p.Name == "" {
		return "", fmt.Errorf("a plan without a name cannot be kept")
	}
	v, err := VersionOf(p)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plans = slices.DeleteFunc(s.plans, func(x stored) bool { return x.version == v })
	s.plans = slices.Insert(s.plans, 0, stored{v, p})
	return v, nil
}

// minVersion is how many digits of a version must be given.
const minVersion = 8

// Get returns a plan by name or by name and version.
func (s *Memory) Get(_ context.Context, m plan.Shape, ref string) (*plan.Plan, error) {
	name, version, pinned := strings.Cut(ref, "@")
	if pinned && len(version) < minVersion {
		return nil, fmt.Errorf("plan %q: give at least %d digits of the version: %w", ref, minVersion, ErrNotFound)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, x := range s.plans {
		if x.plan.Name == name && strings.HasPrefix(string(x.version), version) && x.plan.Check(m) == nil {
			return x.plan, nil
		}
	}
	return nil, fmt.Errorf("plan %q: %w", ref, ErrNotFound)
}

// List returns the plans that names point to.
func (s *Memory) List(_ context.Context, m plan.Shape) ([]*plan.Plan, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []*plan.Plan
	seen := map[string]bool{}
	for _, x := range s.plans {
		if !seen[x.plan.Name] && x.plan.Check(m) == nil {
			seen[x.plan.Name] = true
			list = append(list, x.plan)
		}
	}
	byDensity(list, m.Context)
	return list, nil
}

// byDensity sorts plans, the densest first; equal ones by name.
func byDensity(list []*plan.Plan, context int) {
	slices.SortFunc(list, func(a, b *plan.Plan) int {
		da, db := a.Density(context), b.Density(context)
		switch {
		case da > db:
			return -1
		case da < db:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
}
