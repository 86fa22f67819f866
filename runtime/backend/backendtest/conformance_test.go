package backendtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/weights"
)

// quick keeps the plain backend's tests short: narrow heads, and one type of
// each size of block.
var quick = Options{HeadDim: 16, Types: []weights.Type{weights.F32, weights.Q4_1, weights.Q6_K}}

func TestPlainBackendPassesTheSuite(t *testing.T) { Run(t, plainBackend{}, quick) }

// spy is a testing.TB whose failures are what the test wants.
type spy struct {
	testing.TB
	failed   bool
	cleanups []func()
}

type giveUp struct{}

func (s *spy) Errorf(string, ...any) { s.failed = true }
func (s *spy) Fatalf(string, ...any) { s.failed = true; panic(giveUp{}) }
func (s *spy) Fatal(...any)          { s.failed = true; panic(giveUp{}) }
func (s *spy) Cleanup(f func())      { s.cleanups = append(s.cleanups, f) }

// fails runs a case and reports whether it failed. A backend that panics fails.
func fails(t *testing.T, c testCase) bool {
	s := &spy{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil {
				s.failed = true
			}
		}()
		c.run(s)
	}()
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
	return s.failed
}

// TestSuiteNoticesEveryMistake runs the suite on backends with one mistake each
// and looks at the cases that are there for it.
func TestSuiteNoticesEveryMistake(t *testing.T) {
	for name, c := range map[string]struct {
		faults faults
		by     []string // each of these cases must fail
	}{
		"no sink":            {faults{noSink: true}, []string{"answers like the reference: plan mixed", "answers like the reference: plan one block"}},
		"span too short":     {faults{spanShort: true}, []string{"answers like the reference: plan mixed", "answers like the reference: plan by length"}},
		"span too long":      {faults{spanLong: true}, []string{"answers like the reference: plan mixed", "answers like the reference: plan by length"}},
		"sees the future":    {faults{seesFuture: true}, []string{"answers like the reference: prompt of 2", "chunks do not show, weights F32"}},
		"position in batch":  {faults{positionInBatch: true}, []string{"answers like the reference: plan dense", "chunks do not show, weights F32"}},
		"stale tails":        {faults{staleTail: true}, []string{"pages full of NaN are recycled"}},
		"ignored overwrites": {faults{ignoreOverwrites: true}, []string{"pages are recycled between sequences"}},
		"shared slots":       {faults{sharedSlots: true}, []string{"batches do not show, weights F32"}},
		"last row only":      {faults{lastRowOnly: true}, []string{"answers like the reference: plan dense", "only the rows that are asked for are answered"}},
		"batch shows":        {faults{batchShows: true}, []string{"batches do not show, weights F32", "chunks do not show, weights F32"}},
		"dirty logits":       {faults{dirtyLogits: true}, []string{"kept logits are the caller's"}},
		"no mask":            {faults{noMask: true}, []string{"samples like the reference sampler: greedy"}},
		"wrong group":        {faults{wrongGroup: true}, []string{"answers like the reference: plan dense"}},
		"no bias":            {faults{noBias: true}, []string{"answers like the reference: architecture qwen2"}},
		"no query-key norm":  {faults{noQKNorm: true}, []string{"answers like the reference: architecture qwen3"}},
		"layers share pages": {faults{noKVOffset: true}, []string{"answers like the reference: prompt of 64"}},
		"moves keys only":    {faults{halfPages: true}, []string{"pages answer the same on another device, in other places"}},
		"moves short pages":  {faults{shortPages: true}, []string{"a page is copied whole or not at all"}},
		"typeless format":    {faults{typelessPages: true}, []string{"the format of pages tells their types apart"}},
		"coarse cache":       {faults{coarseCache: true}, []string{fmt.Sprintf("answers like the reference: cache of type %d", backend.KVQ8_0)}},
		"silent": {faults{silent: true}, []string{
			"loading reports progress up to the end", "loading heeds its context", "a step that does not fit the device is refused",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := quick
			o.KV = []backend.KVType{backend.KVF16, backend.KVBF16, backend.KVQ8_0}
			cases := newSuite(plainBackend{c.faults}, o).cases()
			for _, want := range c.by {
				i := slices.IndexFunc(cases, func(c testCase) bool { return c.name == want })
				if i < 0 {
					t.Fatalf("there is no case %q", want)
				}
				if !fails(t, cases[i]) {
					t.Errorf("%q does not notice", want)
				}
			}
		})
	}
}

// TestToleranceLeavesRoomForOtherRounding: a cache that does not round at all is
// as far from the reference as one that rounds every number the other way. The
// reference for q8_0 does not round, and the cache does.
func TestToleranceLeavesRoomForOtherRounding(t *testing.T) {
	for _, kv := range []backend.KVType{backend.KVF16, backend.KVBF16, backend.KVQ8_0} {
		o := quick
		o.KV, o.HeadDim = []backend.KVType{kv}, 32
		s := newSuite(plainBackend{faults{floatCache: kv != backend.KVQ8_0}}, o)
		for _, c := range s.referenceCases() {
			if strings.Contains(c.name, "plan ") && fails(t, c) {
				t.Errorf("cache of type %d: %s", kv, c.name)
			}
		}
	}
}
