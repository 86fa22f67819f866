package main

import (
	"time"

	"github.com/moaserve/moaserve/gateway"
	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// served shows a runtime.Engine to the gateway: a model name for each plan, and
// the tokenizer and template behind the gateway's own small interfaces.
type served struct {
	*runtime.Engine
	models []gateway.ModelInfo
}

var _ gateway.Engine = (*served)(nil)

func newServed(e *runtime.Engine, created time.Time) *served {
	s := &served{Engine: e}
	for i, p := range e.Plans() {
		m := gateway.ModelInfo{ID: e.Name() + ":" + p.Name, Plan: p.Name, Created: created, Context: e.PlanContext(p)}
		if i == 0 {
			// The default plan answers to the bare name as well.
			bare := m
			bare.ID = e.Name()
			s.models = append(s.models, bare)
		}
		s.models = append(s.models, m)
	}
	return s
}

// Models lists the bare name first, then NAME:PLAN for each plan.
func (s *served) Models() []gateway.ModelInfo { return s.models }

// Tokenize returns the ids of text.
func (s *served) Tokenize(text string, addSpecial, parseSpecial bool) []int32 {
	return s.Tokenizer().Encode(text, tokenizer.EncodeOptions{AddSpecial: addSpecial, ParseSpecial: parseSpecial})
}

// Detokenize returns the text of ids, special tokens included.
func (s *served) Detokenize(ids []int32) string { return s.Tokenizer().Decode(ids, false) }

// TokenBytes returns the bytes of one token.
func (s *served) TokenBytes(id int32) []byte { return s.Tokenizer().Bytes(id) }

// Vocab is the number of ids.
func (s *served) Vocab() int { return s.Model().Vocab }

// ChatPrompt renders and tokenises a conversation.
func (s *served) ChatPrompt(p gateway.ChatPrompt) ([]int32, error) {
	return s.Engine.ChatPrompt(chat.Input{Messages: p.Messages, Kwargs: p.Kwargs, AddGenerationPrompt: p.AddGenerationPrompt})
}

// Stats returns the present state.
func (s *served) Stats() gateway.Stats {
	e := s.Engine.Stats()
	return gateway.Stats{
		Running: e.Running, Waiting: e.Waiting, Preemptions: e.Preemptions, Steps: e.Steps, FailedSteps: e.FailedSteps, Busy: e.Busy,
		Pages: e.Pages, PageTokens: plan.BlockSize,
		KVUsage: float64(e.UsedPages) / float64(max(e.Pages, 1)), UsedPages: e.UsedPages, CachedPages: e.CachedPages,
		Prefixes: e.Prefixes, PinnedPrefixes: e.PinnedPrefixes, PrefixEvictions: e.PrefixEvictions, Sessions: e.Sessions,
		Disk: e.Spill,
	}
}
