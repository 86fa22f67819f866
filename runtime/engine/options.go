package engine

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/moaserve/moaserve/runtime/kv/spill"
	"github.com/moaserve/moaserve/runtime/plan"
)

// The defaults of Options.
const (
	// DefaultStepTokens is eight blocks: long enough for the matrix products of a
	// prefill to be bound by arithmetic, short enough that a cancelled prefill or
	// a waiting decode is heard soon.
	DefaultStepTokens = 512
	// DefaultDecodeStretch leaves a prompt more than half of the time; at the speeds
	// of decoding a reader hardly notices.
	DefaultDecodeStretch = 2.5
	DefaultMaxSequences  = 64
	// DefaultMaxSessions and DefaultSessionIdle bound a table whose names clients
	// choose: 1024 conversations of the latest hour.
	DefaultMaxSessions       = 1024
	DefaultSessionIdle       = time.Hour
	DefaultMaxQueuedRequests = 256
	DefaultMaxQueuedTokens   = 4 << 20
)

// Options configure an Engine. Zero fields take their defaults.
type Options struct {
	// Pages is the KV budget in pages; when 0, KVBytes is the budget in bytes.
	// One of them must be set.
	Pages   int
	KVBytes int64
	// MaxSequences bounds the sequences that run at once. It must not exceed the
	// MaxSequences that the device was loaded with.
	MaxSequences int
	// StepTokens bounds the new tokens of one step, at least MaxSequences. It must
	// not exceed the MaxBatchTokens that the device was loaded with.
	StepTokens int
	// PrefillChunkWithDecode bounds the prompt tokens of a step in which other
	// sequences decode, so that a long prompt does not slow down their tokens.
	PrefillChunkWithDecode int
	// DecodeStretch says how many times as long as a step that only decodes one may
	// take that takes prompt tokens along: by it, within PrefillChunkWithDecode, the
	// engine chooses how many. More than 1.
	DecodeStretch float64
	// MaxContext bounds prompt and generated tokens of a sequence together; 0
	// means the model's context.
	MaxContext int
	// MaxQueuedRequests and MaxQueuedTokens bound the requests that wait for
	// admission and the tokens of their prompts.
	MaxQueuedRequests int
	MaxQueuedTokens   int
	// MaxSessions bounds the sessions that are remembered, SessionIdle for how long
	// after their latest request. Forgetting one unpins what it kept.
	MaxSessions int
	SessionIdle time.Duration
	// SharePrefixes lets tenants continue each other's prefixes. What one tenant
	// sent can then be guessed by another from the time that a request takes.
	SharePrefixes bool
	// OpenSpill, when not nil, opens the store in which prefixes outlive their pages
	// and the process, for pages of that format and size. The engine closes it.
	OpenSpill func(format string, pageBytes int) (*spill.Store, error)
	// NoPrefixCache computes every prompt from its first token.
	NoPrefixCache bool
	// Warm prepares the device, if it can be, for the steps to come before the first
	// request is taken, so that none is slower for being the first of its kind.
	Warm bool
	// Logger is told about device failures and preemptions; nil discards them.
	Logger *slog.Logger
	// Observer is told about steps and requests; nil means nobody is.
	Observer Observer
}

// complete fills in the defaults and checks the rest against the model's context
// and the size of a page.
func (o Options) complete(context, pageBytes int) (Options, error) {
	setDefault(&o.MaxSequences, DefaultMaxSequences)
	setDefault(&o.StepTokens, max(DefaultStepTokens, o.MaxSequences))
	setDefault(&o.PrefillChunkWithDecode, o.StepTokens)
	setDefault(&o.MaxSessions, DefaultMaxSessions)
	if o.SessionIdle == 0 {
		o.SessionIdle = DefaultSessionIdle
	}
	if o.DecodeStretch == 0 {
		o.DecodeStretch = DefaultDecodeStretch
	}
	setDefault(&o.MaxContext, context)
	setDefault(&o.MaxQueuedRequests, DefaultMaxQueuedRequests)
	setDefault(&o.MaxQueuedTokens, DefaultMaxQueuedTokens)
	if o.Pages == 0 && pageBytes > 0 {
		o.Pages = int(o.KVBytes / int64(pageBytes))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	for _, f := range []struct {
		name  string
		value int
	}{
		{"Pages (or KVBytes / page size)", o.Pages},
		{"MaxSequences", o.MaxSequences},
		{"StepTokens", o.StepTokens},
		{"PrefillChunkWithDecode", o.PrefillChunkWithDecode},
		{"MaxContext", o.MaxContext},
		{"MaxSessions", o.MaxSessions},
		{"MaxQueuedRequests", o.MaxQueuedRequests},
		{"MaxQueuedTokens", o.MaxQueuedTokens},
	} {
		if f.value <= 0 {
			return o, fmt.Errorf("engine options: %s is %d, want more than 0", f.name, f.value)
		}
	}
	if !(o.DecodeStretch > 1) {
		return o, fmt.Errorf("engine options: DecodeStretch is %v, want more than 1", o.DecodeStretch)
	}
	if o.StepTokens < o.MaxSequences {
		return o, fmt.Errorf("engine options: %d sequences may decode at once, but a step holds %d tokens", o.MaxSequences, o.StepTokens)
	}
	return o, nil
}

// chunkTokens is the longest chunk that is cut from a prompt, in whole blocks.
func (o Options) chunkTokens() int {
	return max(o.StepTokens/plan.BlockSize, 1) * plan.BlockSize
}

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}
