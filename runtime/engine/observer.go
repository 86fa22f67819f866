package engine

import (
	"time"

	"github.com/moaserve/moaserve/runtime/kv/spill"
)

// Observer is told what an Engine does. It is for programs that embed the runtime; the
// gateway counts what it learns from the events of requests instead. Its methods run on the engine's goroutine, between steps, and must not block.
//
// For n finished requests with k tokens each, n first tokens and n*(k-1) next
// tokens are observed, preempted or not.
type Observer interface {
	// ObserveStep is called after each step of the device.
	ObserveStep(StepReport)
	// ObserveFirstToken is called with the time from Submit to a request's first
	// token.
	ObserveFirstToken(time.Duration)
	// ObserveNextToken is called with the time between two tokens of a request.
	ObserveNextToken(time.Duration)
	// ObserveFinish is called when a request ends, admitted or not.
	ObserveFinish(RequestReport)
}

// StepReport describes one step of the device.
type StepReport struct {
	PrefillTokens int // prompt tokens, those of recomputed sequences included
	DecodeTokens  int // sequences that decoded: one token each
	Prefills      int // sequences that prefilled
	Duration      time.Duration
	Err           error // the device failed; the tokens were not computed
}

// RequestReport describes a finished request.
type RequestReport struct {
	Tenant          string
	Reason          Reason
	PromptTokens    int
	CachedTokens    int
	GeneratedTokens int
	MaxTokens       int // as asked for: 0 when not
	Preemptions     int
	Timings         Timings
}

// nobody is the Observer of an Engine that has none.
type nobody struct{}

var _ Observer = nobody{}

func (nobody) ObserveStep(StepReport)          {}
func (nobody) ObserveFirstToken(time.Duration) {}
func (nobody) ObserveNextToken(time.Duration)  {}
func (nobody) ObserveFinish(RequestReport)     {}

// Stats is a snapshot of an Engine. Counters count from its start.
type Stats struct {
	Running      int // sequences that hold a slot
	Waiting      int // requests that wait for admission, preempted ones included
	QueuedTokens int // prompt tokens of the requests that wait

	Pages     int // KV pages there are
	UsedPages int // pages that running sequences hold
	// CachedPages are held by kept prefixes alone: they are given up as soon as a
	// sequence needs them.
	CachedPages int
	// CommittedPages are those that running sequences hold or may still claim
	// before they end: admission goes by them.
	CommittedPages int

	Steps         uint64
	FailedSteps   uint64
	PrefillTokens uint64
	DecodeTokens  uint64
	Preemptions   uint64
	CachedTokens  uint64 // prompt tokens that came from kept prefixes
	Finished      uint64 // requests that ended, for whatever reason
	Refused       uint64 // requests that Submit refused because the queue was full
	StepTokens    int    // tokens of the latest step
	// Busy is the time that the device worked at the steps, where it can tell.
	Busy time.Duration

	Sessions        int // sessions that are remembered
	Prefixes        int // prefixes that are kept
	PinnedPrefixes  int // of which are a session's latest
	PrefixHits      uint64
	PrefixMisses    uint64
	PrefixEvictions uint64

	Spill spill.Stats // zero when prefixes are not kept on disk
}

// FreePages returns the pages that hold nothing.
func (s Stats) FreePages() int { return s.Pages - s.UsedPages - s.CachedPages }
