// Package engine is the scheduler: it admits requests, cuts prompts into
// chunks, batches prefill and decode into steps of a backend.Device, and returns
// pages the moment a request ends. One goroutine owns all of its state.
//
// The engine knows tokens, pages and plans; it knows no text and no HTTP.
package engine

import (
	"time"

	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
)

// Request is one sequence to complete.
type Request struct {
	ID       string
	Prompt   []int32 // at least one token
	Plan     *plan.Plan
	Sampling sample.Params
	// MaxTokens bounds the generated tokens; 0 means up to the context.
	MaxTokens int
	// Stop are the token ids that end the sequence (end of generation). A
	// stopping token is delivered like any other, with Event.Stopped set.
	Stop   []int32
	Tenant string
	// Session, when not empty, names the conversation that the request belongs to:
	// see [SessionInfo]. It changes no answer.
	Session string
	// Logits asks for the raw logits of every prompt token but the last in the
	// prefill's events: the evaluation programs use it.
	Logits bool
	// Progress asks for KindProgress events.
	Progress bool
}

// Kind says which fields of an Event are set.
type Kind uint8

// The events of a sequence, in this order: Admitted, Progress*, Token*, Finished.
const (
	KindAdmitted Kind = iota + 1
	KindProgress
	KindToken
	KindFinished
)

// Event is one step of a sequence's life.
type Event struct {
	Kind Kind

	CachedTokens int // KindAdmitted: prompt tokens found in the prefix cache
	Processed    int // KindProgress: prompt tokens computed so far
	// Logits are those of the prompt tokens of the chunk just computed, when
	// Request.Logits is set (KindProgress). The receiver owns them.
	Logits [][]float32

	Choice  sample.Choice // KindToken
	Stopped bool          // KindToken: the token is one of Request.Stop

	Reason  Reason // KindFinished
	Err     error  // KindFinished with ReasonError
	Timings Timings
}

// Reason says why a sequence ended.
type Reason uint8

// The reasons for a sequence's end.
const (
	ReasonStop Reason = iota + 1
	ReasonLength
	ReasonCancelled
	ReasonError
)

// Timings of a finished sequence.
type Timings struct {
	Queue   time.Duration // from Submit to admission
	Prefill time.Duration // from admission to the first token
	Decode  time.Duration // from the first token to the last
}
