package measure

import (
	"math"
	"slices"

	"github.com/moaserve/moaserve/runtime"
)

// Options say what a [Meter] measures: every combination of plan, depth and batch.
type Options struct {
	// Plans are written as for [runtime.Options]. None means dense, and the model's
	// default plan where it is known.
	Plans []string
	// Depths are the mean lengths of a batch's prompts, in tokens; at least one, all
	// positive.
	Depths []int
	// Batches are numbers of streams at a time; at least one, all positive.
	Batches []int
	// PromptMix spreads the lengths of a batch's prompts evenly from 1-PromptMix to
	// 1+PromptMix times the depth. It is at least 0 and less than 1.
	PromptMix float64
	// Steps are the decode steps to measure, in all of which all streams take part; 0
	// measures prompts only.
	Steps int
	// Repeat is how often each point is measured, at least once.
	Repeat int
	// Rehearse reads each kind of prompts once before they are measured, so that what a
	// device tunes for new shapes does not count.
	Rehearse bool
	// Temperature of the sampling; 0 takes the likeliest token.
	Temperature float32
	// Bound is the bandwidth, in bytes a second, that the one reached is held against; 0
	// measures a plain read of the device's memory.
	Bound float64
}

// defaultStreams is how many sequences every backend runs at a time by default.
const defaultStreams = 64

// EngineOptions returns r as the measurement needs it: the plans are there, all streams
// fit at a time and decoding goes on from the pages of the prompts. Sizes that r gives
// are kept where they suffice.
func (o Options) EngineOptions(r runtime.Options) runtime.Options {
	// Dense is the default, so that the KV cache is sized for the plan that takes most.
	r.Plan, r.Plans = "dense", o.Plans
	// What two first tokens are apart is of no interest here: prompts are read, then
	// streams decode, and what is left of a prompt then is to be over soon.
	r.DecodeStretch = math.MaxInt32
	r.Warm = o.Rehearse
	r.NoPrefixCache = false // decoding goes on from what reading left there
	streams, longest := slices.Max(o.Batches), 0
	for _, depth := range o.Depths {
		longest = max(longest, slices.Max(promptLengths(depth, streams, o.PromptMix)))
	}
	if r.MaxSequences > 0 || streams > defaultStreams {
		r.MaxSequences = max(r.MaxSequences, streams)
	}
	if r.StepTokens > 0 {
		r.StepTokens = max(r.StepTokens, r.MaxSequences)
	}
	r.KVSequences = streams + 1
	r.MaxQueuedRequests, r.MaxQueuedTokens = streams, streams*(longest+1)
	if r.Context == 0 {
		r.Context = longest + 1 + answerTokens(streams, o.Steps)
	}
	return r
}
