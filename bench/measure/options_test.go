package measure

import (
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime"
)

func TestEnginesHaveRoomForAllStreams(t *testing.T) {
	o := Options{Plans: []string{"mixed:50%"}, Depths: []int{100, 1000}, Batches: []int{1, 100}, Steps: 10, Rehearse: true}
	for name, c := range map[string]struct {
		given                           runtime.Options
		sequences, stepTokens, contexts int
	}{
		"nothing given": {runtime.Options{}, 100, 0, 1000 + 1 + joinSteps + 100 + settleSteps + 10},
		"too little":    {runtime.Options{MaxSequences: 8, StepTokens: 16, Context: 1200}, 100, 100, 1200},
		"enough":        {runtime.Options{MaxSequences: 128, StepTokens: 4096, Context: 9000}, 128, 4096, 9000},
	} {
		c.given.NoPrefixCache = true
		r := o.EngineOptions(c.given)
		if r.MaxSequences != c.sequences || r.StepTokens != c.stepTokens || r.Context != c.contexts {
			t.Errorf("%s: %d sequences, %d tokens a step, a context of %d tokens; want %+v", name, r.MaxSequences, r.StepTokens, r.Context, c)
		}
		if r.Plan != "dense" || len(r.Plans) != 1 || r.KVSequences != 101 || r.MaxQueuedRequests != 100 || r.MaxQueuedTokens != 100*1001 ||
			r.DecodeStretch != math.MaxInt32 || r.NoPrefixCache || !r.Warm {
			t.Errorf("%s: %+v", name, r)
		}
	}
	o.Batches = []int{defaultStreams}
	if r := o.EngineOptions(runtime.Options{}); r.MaxSequences != 0 {
		t.Errorf("the backend's own number of sequences became %d", r.MaxSequences)
	}
}
