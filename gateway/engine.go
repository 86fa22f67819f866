// Package gateway serves a runtime over the OpenAI HTTP API. It knows HTTP: wire
// types, server-sent events, limits, API keys, errors, metrics and readiness. It
// knows nothing of plans, pages or devices beyond what Engine tells it.
//
// docs/api.md is the contract with clients.
package gateway

import (
	"context"
	"encoding/json"
	"time"

	"github.com/moaserve/moaserve/runtime"
)

// Engine is what a Server needs from the runtime. All methods may be called from
// any number of goroutines.
type Engine interface {
	Catalogue
	Generator
	Tokenizer
	Templater
	Memory
	Monitor
}

// Catalogue lists what can be asked for.
type Catalogue interface {
	// Models returns the servable models, the default first; there is at least
	// one. The caller does not modify the slice.
	Models() []ModelInfo
}

// ModelInfo is a set of weights under a plan.
type ModelInfo struct {
	ID      string    // NAME for the default plan, NAME:dense, NAME:PLAN
	Plan    string    // goes into runtime.Request.Plan; empty is the default plan
	Created time.Time // when the model or its plan was made
	Context int       // tokens of prompt and answer together
}

// Generator completes prompts.
type Generator interface {
	// Generate starts a request and returns its events. The channel is closed
	// after EventFinished. When ctx is cancelled the request ends within a step,
	// in the queue and in the prefill too, and the receiver may stop receiving at
	// once: a sender must not block after that.
	//
	// A receiver can be as slow as its client, up to Timeouts.Flush a time. The
	// implementation buffers, so that it delays no other request.
	//
	// Errors: runtime.ErrQueueFull, runtime.ErrUnknownPlan, runtime.ErrClosed and
	// *runtime.ContextLengthError. An error with a method RetryAfter()
	// time.Duration tells the client when to come back.
	Generate(ctx context.Context, r runtime.Request) (<-chan runtime.Event, error)
}

// Tokenizer is the model's vocabulary.
type Tokenizer interface {
	// Tokenize returns the ids of text. addSpecial adds what the model wants
	// around a text (its beginning-of-sequence token); parseSpecial reads special
	// tokens that are spelt out in the text.
	Tokenize(text string, addSpecial, parseSpecial bool) []int32
	// Detokenize returns the text of ids, special tokens included.
	Detokenize(ids []int32) string
	// TokenBytes returns the bytes of one token, perhaps a part of a character.
	TokenBytes(id int32) []byte
	// Vocab is the number of ids.
	Vocab() int
}

// Templater turns conversations into prompts.
type Templater interface {
	// ChatPrompt renders the model's chat template and tokenises the result. An
	// error is the conversation's fault: a template may refuse roles or orders.
	ChatPrompt(p ChatPrompt) ([]int32, error)
}

// ChatPrompt is a conversation to render.
type ChatPrompt struct {
	// Messages is a JSON array of objects with string members role and content;
	// name, tool_call_id, reasoning_content (strings) and tool_calls (array) may
	// follow. The gateway has checked it and joined content parts.
	Messages json.RawMessage
	// Kwargs is a JSON object of further template variables, or nil.
	Kwargs json.RawMessage
	// AddGenerationPrompt ends the prompt with the opening of an assistant turn.
	AddGenerationPrompt bool
}

// Monitor tells how the engine is.
type Monitor interface {
	// Healthy returns nil while the engine can serve. It returns quickly.
	Healthy() error
	// Stats returns the present state. It returns quickly.
	Stats() Stats
}

// Memory tells what the KV cache is used for.
type Memory interface {
	// Sessions returns the sessions of a tenant, the latest used first.
	Sessions(tenant string) []runtime.SessionInfo
	// EndSession forgets a session and what was kept for it. It reports whether
	// there was one.
	EndSession(tenant, id string) bool
	// PlanPages returns what each plan in use holds, by name. It may wait for the
	// end of the step that runs.
	PlanPages(ctx context.Context) ([]runtime.PlanPages, error)
}

// Stats is the state of an engine at one moment.
type Stats struct {
	Running     int     // sequences admitted and not finished
	Waiting     int     // sequences in the queue
	KVUsage     float64 // share of the KV pages in use, 0..1
	Preemptions uint64  // sequences sent back to the queue, since the start
	Steps       uint64  // of the device, since the start
	FailedSteps uint64  // of which failed
	// Busy is the time that the device worked at the steps, where it can tell: the rest
	// it waited, for requests or for the host.
	Busy        time.Duration
	PageTokens  int // positions a KV page holds
	Pages       int // KV pages in the pool
	UsedPages   int // of which running sequences hold
	CachedPages int // of which only kept prefixes hold

	Prefixes        int // prefixes that are kept
	PinnedPrefixes  int // of which are a session's latest
	PrefixEvictions uint64
	Sessions        int // sessions that are remembered

	Disk runtime.SpillStats // of prefixes kept in files; zero when there are none
}
