package engine

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
)

// sequence is a request with its state. Submit makes it; from then on only the
// engine's goroutine touches it.
type sequence struct {
	req     Request
	ctx     context.Context
	unwatch func() bool // ends the watch over ctx
	stream  *Stream
	arrival uint64 // order of Submit

	layout *plan.Layout
	// limit is the number of prompt and generated tokens at which it ends.
	limit int
	// growing sequences named no MaxTokens. They reserve pages for their prompt
	// only and take more as they go; when there are none, they are preempted.
	growing bool

	sampler *sample.Sampler
	// generated are the tokens so far. The last is backend.ChoiceOf a row while the
	// step that chooses it is under way.
	generated []int32

	kv      *kv.Sequence
	session *session // counts it as running
	chain   *chain
	keys    []kv.Key // of the whole blocks hashed so far
	stops   []int    // where prefixes are to be kept, ascending, in whole blocks
	cached  int      // prompt tokens that came from a kept prefix
	unknown bool     // the device does not know the pages of that prefix yet
	slot    int      // noSlot unless running
	commit  int      // pages that it holds or may still take

	planned    int // end of the chunk of the step being built
	processed  int // prompt tokens reported by Progress events
	logitsSent int // prompt tokens whose logits were delivered
	overtaken  int
	preempted  int
	continued  kv.Key // the prefix that it began with
	left       kv.Key // of the prefix that was kept when it ended
	unrestored bool   // what a disk keeps of its text could not be used

	submitted, admitted, firstToken, lastToken time.Time
}

const noSlot = -1

// total returns the number of tokens there are: those of the prompt and those
// generated. The last generated one has no keys and values yet.
func (s *sequence) total() int { return len(s.req.Prompt) + len(s.generated) }

// decoding reports whether only the last generated token has to be computed.
func (s *sequence) decoding() bool {
	return len(s.generated) > 0 && s.kv.Len() == s.total()-1
}

// takes enters a token that a step chose, in the place of its name if it has one.
func (s *sequence) takes(id int32) {
	if n := len(s.generated); n > 0 && s.generated[n-1] < 0 {
		s.generated[n-1] = id
		return
	}
	s.generated = append(s.generated, id)
}

// delivered returns the number of generated tokens that the stream got.
func (s *sequence) delivered() int {
	n := len(s.generated)
	if n > 0 && s.generated[n-1] < 0 {
		n--
	}
	return n
}

// remaining returns the tokens that are left to compute before the next one is
// sampled.
func (s *sequence) remaining() int { return s.total() - s.kv.Len() }

// appendTokens appends the tokens at positions from to to of the sequence.
func (s *sequence) appendTokens(dst []int32, from, to int) []int32 {
	p := len(s.req.Prompt)
	if from < p {
		dst = append(dst, s.req.Prompt[from:min(to, p)]...)
	}
	if to > p {
		dst = append(dst, s.generated[max(from, p)-p:to-p]...)
	}
	return dst
}

// reservation returns the pages to set aside before the sequence's next chunk is
// computed, out of a pool of that size. A chunk may be cut shorter to fit in
// them.
//
// A sequence with MaxTokens sets aside all that it will ever need. One without
// sets aside its prefill and a block of generated tokens, so that it is not
// preempted before it has done anything.
func (s *sequence) reservation(chunk, pages int) int {
	last := s.limit - 1 // the last token is never fed back
	if s.growing {
		last = min(last, s.total()+plan.BlockSize)
	}
	need := s.layout.Pages(last)
	if from := s.kv.Len(); !s.decoding() && from < s.total() {
		// Most chunks begin with a block: they enter no more blocks than a chunk shorter
		// by a block less a token would that begins anywhere. One behind a chunk that
		// filled the rows beside decodes may not; then it is cut shorter.
		need = max(need, s.layout.PeakPages(from, s.total(), chunk-plan.BlockSize+1))
	}
	return min(need, pages)
}

// capacity returns the longest sequence, up to most tokens, whose KV need is at
// most that many pages.
func capacity(l *plan.Layout, most, pages int) int {
	return sort.Search(most, func(n int) bool { return l.Pages(n+1) > pages })
}

// newSequence checks a request and binds its plan. It runs on the goroutine of
// Submit and reads only what never changes.
func (e *Engine) newSequence(ctx context.Context, req Request) (*sequence, error) {
	if err := e.checkRequest(req); err != nil {
		return nil, err
	}
	prompt := len(req.Prompt)
	s := &sequence{
		req: req, ctx: ctx, slot: noSlot, growing: req.MaxTokens == 0,
		limit: prompt + req.MaxTokens, submitted: time.Now(),
	}
	if s.growing {
		s.limit = e.o.MaxContext
	}
	s.layout = req.Plan.Bind(s.limit)
	if s.growing {
		// The last token needs no page, hence one more than the pages hold.
		s.limit = min(s.limit, 1+capacity(s.layout, e.o.MaxContext, e.o.Pages))
	}
	tokens := prompt
	if !s.growing {
		tokens = s.limit - 1
	}
	if need := s.layout.Pages(tokens); need > e.o.Pages {
		return nil, &NeverFitsError{Tokens: tokens, Need: need, Pages: e.o.Pages}
	}
	s.kv = kv.NewSequence(e.pages, s.layout)
	s.stream = newStream(e.poke)
	s.sampler = sample.New(req.Sampling, req.Prompt)
	salt := req.Tenant
	if e.o.SharePrefixes {
		salt = ""
	}
	s.hashPrompt(salt)
	s.findStops(e.o.chunkTokens())
	return s, nil
}

// checkRequest refuses what no load of the server would make right.
func (e *Engine) checkRequest(req Request) error {
	switch {
	case len(req.Prompt) == 0:
		return invalid("the prompt is empty")
	case req.MaxTokens < 0:
		return invalid("max tokens is %d", req.MaxTokens)
	case req.Plan == nil:
		return invalid("there is no plan")
	}
	if len(req.Plan.Heads) != e.model.Layers {
		return invalid("plan %q has %d layers, the model has %d", req.Plan.Name, len(req.Plan.Heads), e.model.Layers)
	}
	for i, heads := range req.Plan.Heads {
		if len(heads) != e.model.KVHeads {
			return invalid("layer %d of plan %q has %d KV heads, the model has %d", i, req.Plan.Name, len(heads), e.model.KVHeads)
		}
	}
	// Without MaxTokens there must be room for one token. Written so that no sum
	// overflows.
	if len(req.Prompt) >= e.o.MaxContext || req.MaxTokens > e.o.MaxContext-len(req.Prompt) {
		return &ContextLengthError{PromptTokens: len(req.Prompt), MaxTokens: req.MaxTokens, Context: e.o.MaxContext}
	}
	vocab := int32(e.model.Vocab)
	if i := slices.IndexFunc(req.Prompt, func(t int32) bool { return t < 0 || t >= vocab }); i >= 0 {
		return invalid("token %d of the prompt is %d, the vocabulary has %d tokens", i, req.Prompt[i], vocab)
	}
	return nil
}
