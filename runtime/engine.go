package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// Engine is an opened model with its scheduler running. Its methods are safe for
// concurrent use.
type Engine struct {
	name       string
	files      *files
	model      *model.Model
	tokenizer  *tokenizer.Tokenizer
	template   *chat.Template
	plans      []*plan.Plan // the default first
	context    int
	pages      int
	stepTokens int // new tokens of a step at most
	device     backend.Device
	engine     *engine.Engine
	log        *slog.Logger
}

// Name is what clients call the model.
func (e *Engine) Name() string { return e.name }

// Model returns the architecture.
func (e *Engine) Model() model.Config { return e.model.Config }

// Context returns how many tokens prompt and answer may have together.
func (e *Engine) Context() int { return e.context }

// Plans returns the plans that a request may name, the default first.
func (e *Engine) Plans() []*plan.Plan { return e.plans }

// StepTokens returns how many new tokens a step has at most.
func (e *Engine) StepTokens() int { return e.stepTokens }

// KVPages returns the size of the KV cache in pages.
func (e *Engine) KVPages() int { return e.pages }

// KVBytes returns the size of the KV cache in bytes.
func (e *Engine) KVBytes() int64 { return int64(e.pages) * int64(e.device.PageBytes()) }

// DeviceFree returns the bytes of the device's memory that nobody uses; false when it
// has none of its own. It is for an idle engine.
func (e *Engine) DeviceFree() (int64, bool) {
	d, ok := e.device.(backend.MemoryMeter)
	if !ok {
		return 0, false
	}
	return d.FreeMemory(), true
}

// Describe names the backend.
func (e *Engine) Describe() string { return e.device.Describe() }

// Tokenizer returns the model's tokenizer.
func (e *Engine) Tokenizer() *tokenizer.Tokenizer { return e.tokenizer }

// Stats returns a snapshot of the scheduler's state.
func (e *Engine) Stats() engine.Stats { return e.engine.Stats() }

// Sessions returns the sessions of a tenant, the latest used first.
func (e *Engine) Sessions(tenant string) []SessionInfo { return e.engine.Sessions(tenant) }

// EndSession forgets a session and what was kept for it. It reports whether there
// was one.
func (e *Engine) EndSession(tenant, id string) bool { return e.engine.EndSession(tenant, id) }

// PlanPages returns what the sequences and prefixes of each plan hold.
func (e *Engine) PlanPages(ctx context.Context) ([]PlanPages, error) { return e.engine.PlanPages(ctx) }

// Lost returns a channel that is closed when the device is beyond use: everything has
// ended with an error, and only a new process helps. Healthy says why.
func (e *Engine) Lost() <-chan struct{} { return e.engine.Lost() }

// Healthy returns nil, or why the engine can no longer compute.
func (e *Engine) Healthy() error { return e.engine.Healthy() }

// plan returns the plan of that name, the default for "", nil when there is none.
func (e *Engine) plan(name string) *plan.Plan {
	for _, p := range e.plans {
		if name == "" || p.Name == name {
			return p
		}
	}
	return nil
}

// ChatPrompt renders the chat template and tokenises the result.
func (e *Engine) ChatPrompt(in chat.Input) ([]int32, error) {
	if id, ok := e.tokenizer.BOS(); ok {
		in.BOSToken = e.tokenizer.Token(id)
	}
	if id, ok := e.tokenizer.EOS(); ok {
		in.EOSToken = e.tokenizer.Token(id)
	}
	if in.Now == nil {
		in.Now = time.Now
	}
	text, err := e.template.Render(in)
	if err != nil {
		return nil, err
	}
	// A template writes the special tokens itself.
	return e.tokenizer.Encode(text, tokenizer.EncodeOptions{ParseSpecial: true}), nil
}

// UserMessage returns the messages array of a single user turn.
func UserMessage(text string) json.RawMessage {
	b, err := json.Marshal([]map[string]string{{"role": "user", "content": text}})
	if err != nil {
		panic(err) // a slice of string maps always marshals
	}
	return b
}

// Generate submits a request. Refusals (ErrQueueFull, ErrUnknownPlan, ErrClosed,
// *ContextLengthError and others) come as an error; from then on the request's
// life comes through the channel, which is closed after EventFinished. The
// receiver must drain it or cancel ctx.
func (e *Engine) Generate(ctx context.Context, r Request) (<-chan Event, error) {
	p := e.plan(r.Plan)
	if p == nil {
		return nil, fmt.Errorf("%w %q", ErrUnknownPlan, r.Plan)
	}
	s, err := newStream(ctx, e, p, r)
	if err != nil {
		return nil, e.refusal(err, p, r)
	}
	out := make(chan Event, streamBuffer)
	go s.run(ctx, out)
	return out, nil
}

// streamBuffer is how many events may wait between a request's goroutine and
// its receiver: a burst's worth, so that they need not meet at each token.
const streamBuffer = 16

// refusal turns the scheduler's errors into this package's.
func (e *Engine) refusal(err error, p *plan.Plan, r Request) error {
	var full *engine.QueueFullError
	switch {
	case errors.As(err, &full):
		return &QueueFullError{Wait: full.Wait, detail: full.Error()}
	case errors.Is(err, engine.ErrNeverFits):
		// The KV cache is the shorter context here.
		return &ContextLengthError{PromptTokens: len(r.Prompt), MaxTokens: r.MaxTokens, Context: e.PlanContext(p)}
	case errors.Is(err, engine.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// PlanContext returns how many tokens prompt and answer may have together under a plan:
// Context, or less where the KV cache does not hold one sequence that long.
func (e *Engine) PlanContext(p *plan.Plan) int {
	return sort.Search(e.context, func(n int) bool {
		tokens := n + 1
		return p.Bind(tokens).PeakPages(0, tokens, e.stepTokens) > e.pages
	})
}

// Drain stops admission and waits until the running requests have finished or
// ctx ends.
func (e *Engine) Drain(ctx context.Context) error { return e.engine.Drain(ctx) }

// Close cancels what runs and releases the device and the model file.
func (e *Engine) Close() error {
	return errors.Join(e.engine.Close(), e.device.Close(), e.files.source.Close())
}
