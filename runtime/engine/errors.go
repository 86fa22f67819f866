package engine

import (
	"errors"
	"fmt"
	"time"
)

// ErrClosed refuses requests after Close or Drain, and ends those that Close
// interrupts.
var ErrClosed = errors.New("the engine is shut down")

// ErrQueueFull is what errors.Is finds in a [QueueFullError].
var ErrQueueFull = errors.New("the queue is full")

// ErrNeverFits is what errors.Is finds in a [NeverFitsError].
var ErrNeverFits = errors.New("the request does not fit the KV cache")

// ErrInvalidRequest is what errors.Is finds when a request makes no sense for
// the loaded model, whatever the load.
var ErrInvalidRequest = errors.New("invalid request")

// QueueFullError refuses a request because too many requests or tokens wait. The
// caller may try again later.
type QueueFullError struct {
	Requests, MaxRequests int // requests that wait, and how many may
	Tokens, MaxTokens     int // prompt tokens that wait, and how many may
	// Wait estimates, from the prompt tokens computed per second of late, how long
	// a request at the end of the queue waits. It is at least a second.
	Wait time.Duration
}

// Error gives the figures.
func (e *QueueFullError) Error() string {
	return fmt.Sprintf("the queue is full: %d of %d requests and %d of %d prompt tokens wait",
		e.Requests, e.MaxRequests, e.Tokens, e.MaxTokens)
}

// Is makes errors.Is(err, ErrQueueFull) true.
func (e *QueueFullError) Is(target error) bool { return target == ErrQueueFull }

// NeverFitsError refuses a request whose plan needs more KV pages than there
// are, even if it ran alone.
type NeverFitsError struct {
	Tokens int // prompt and max_tokens, or the prompt when no max_tokens was named
	Need   int // pages that the plan needs for them
	Pages  int // pages there are
}

// Error gives the figures.
func (e *NeverFitsError) Error() string {
	return fmt.Sprintf("%d tokens need %d KV pages under this plan, the server has %d", e.Tokens, e.Need, e.Pages)
}

// Is makes errors.Is(err, ErrNeverFits) true.
func (e *NeverFitsError) Is(target error) bool { return target == ErrNeverFits }

// ContextLengthError refuses a request that does not fit the context.
type ContextLengthError struct {
	PromptTokens int // tokens of the prompt
	MaxTokens    int // tokens asked for, 0 when none were
	Context      int // tokens that fit
}

// Error says how much does not fit.
func (e *ContextLengthError) Error() string {
	return fmt.Sprintf("the prompt has %d tokens and %d more were asked for, but the context holds %d",
		e.PromptTokens, e.MaxTokens, e.Context)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalidRequest, fmt.Errorf(format, args...))
}
