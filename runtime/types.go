// Package runtime is the inference engine as a library: it opens a model,
// executes MoA plans on a backend, and turns requests into streams of events.
// It is the thin public face of the packages below it.
package runtime

import (
	"errors"
	"time"

	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/kv/spill"
	"github.com/moaserve/moaserve/runtime/sample"
)

// Request asks for one completion of a tokenised prompt.
type Request struct {
	// ID names the request in logs; it need not be unique.
	ID string
	// Prompt holds the token ids, special tokens included. It is not modified
	// and must not be modified while the request runs.
	Prompt []int32
	// Plan names the plan to run under; empty means the default plan.
	Plan string
	// MaxTokens bounds the generated tokens; 0 means as many as the context
	// holds.
	MaxTokens int
	// Stop ends generation when the text contains one of these strings. The
	// string itself is not part of the text unless IncludeStop is set.
	Stop        []string
	IncludeStop bool
	// IgnoreEOS keeps generating through end-of-generation tokens.
	IgnoreEOS bool
	// StopTokenIDs end generation like an end-of-generation token.
	StopTokenIDs []int32
	Sampling     sample.Params
	// Tenant separates queues and prefix caches; empty is a tenant like others.
	Tenant string
	// Session, when not empty, names the conversation that the request belongs to,
	// among those of its tenant. What its latest request left in the KV cache is
	// given up last. It changes no answer.
	Session string
	// Progress asks for EventProgress during prefill.
	Progress bool
}

// EventKind says which fields of an Event are set.
type EventKind uint8

// The events of a request, in the order in which they can come: one Admitted,
// any number of Progress, any number of Text, one Finished.
const (
	// EventAdmitted: the request left the queue. CachedTokens is set.
	EventAdmitted EventKind = iota + 1
	// EventProgress: a chunk of the prompt was computed. Processed is set.
	EventProgress
	// EventText: Text and Tokens are set. Text may be empty when a token did not
	// complete a character or may be the beginning of a stop string.
	EventText
	// EventFinished: the last event. Reason, Usage and Timings are set, Err too
	// when Reason is ReasonError.
	EventFinished
)

// Event is one step of a request's life.
type Event struct {
	Kind EventKind

	CachedTokens int // prompt tokens that were taken from the prefix cache
	Processed    int // prompt tokens computed so far, cached ones included

	Text   string  // always whole UTF-8 sequences
	Tokens []Token // the tokens generated since the previous EventText

	Reason  Reason
	Usage   Usage
	Timings Timings
	Err     error
}

// Token is a generated token.
type Token struct {
	ID      int32
	Bytes   []byte // the token's own bytes: a part of a UTF-8 sequence perhaps
	Logprob float32
	Top     []TokenLogprob
}

// TokenLogprob is an alternative at a token's position.
type TokenLogprob struct {
	ID      int32
	Bytes   []byte
	Logprob float32
}

// Reason says why a request ended.
type Reason string

// The reasons. Stop and Length are OpenAI's finish_reason.
const (
	ReasonStop      Reason = "stop"      // end-of-generation token or stop string
	ReasonLength    Reason = "length"    // MaxTokens or the end of the context
	ReasonCancelled Reason = "cancelled" // the request's context was cancelled
	ReasonError     Reason = "error"     // the device failed; Err says how
)

// Usage counts tokens.
type Usage struct {
	PromptTokens     int
	CachedTokens     int
	CompletionTokens int
}

// Timings of a finished request.
type Timings struct {
	Queue   time.Duration // from Submit to admission
	Prefill time.Duration // from admission to the first token
	Decode  time.Duration // from the first token to the last
}

// ErrQueueFull is what errors.Is finds in a [QueueFullError].
var ErrQueueFull = errors.New("the queue is full")

// QueueFullError refuses a request because too many requests or tokens wait. The
// caller may retry later.
type QueueFullError struct {
	Wait   time.Duration // estimate of when there will be room
	detail string
}

// Error gives the figures.
func (e *QueueFullError) Error() string { return e.detail }

// Is makes errors.Is(err, ErrQueueFull) true.
func (e *QueueFullError) Is(target error) bool { return target == ErrQueueFull }

// RetryAfter returns Wait.
func (e *QueueFullError) RetryAfter() time.Duration { return e.Wait }

// ErrUnknownPlan refuses a request that names a plan the server does not have.
var ErrUnknownPlan = errors.New("unknown plan")

// ErrClosed refuses requests after Close or while draining.
var ErrClosed = errors.New("the engine is shut down")

// ContextLengthError refuses a request that does not fit the context.
type ContextLengthError = engine.ContextLengthError

// SessionInfo describes a session.
type SessionInfo = engine.SessionInfo

// PlanPages says what the sequences and prefixes of one plan hold.
type PlanPages = engine.PlanPages

// SpillStats counts the prefixes kept in files.
type SpillStats = spill.Stats
