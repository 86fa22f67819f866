// Package sample turns logits into tokens: the sampling parameters of the
// OpenAI API and of the servers around it, and the reference sampler that the
// CPU backend runs and the CUDA backend is tested against.
package sample

import (
	"fmt"
	"math"
)

// Params are the sampling parameters of one request. The zero value is greedy.
type Params struct {
	Temperature       float32 // 0 is greedy; at most 2 is usual
	TopP              float32 // 0 and 1 mean off
	TopK              int     // 0 means off
	MinP              float32 // 0 means off
	PresencePenalty   float32 // -2..2, over generated tokens
	FrequencyPenalty  float32 // -2..2, over generated tokens
	RepetitionPenalty float32 // 0 and 1 mean off; over prompt and generated tokens
	LogitBias         map[int32]float32
	Seed              uint64
	// Logprobs asks for the log-probability of each sampled token, TopLogprobs
	// for that many of the likeliest alternatives (0..20). They are those of the
	// model's own distribution: the log-softmax of the logits as they came, before
	// biases, penalties, masks, temperature and truncation (vLLM's raw_logprobs).
	Logprobs    bool
	TopLogprobs int
	// MinTokens holds back every token in Stop until so many were generated.
	MinTokens int
	Stop      []int32
}

// Logprob is a token and its natural log-probability.
type Logprob struct {
	ID      int32
	Logprob float32
}

// Choice is the outcome of one sampling.
type Choice struct {
	ID      int32
	Logprob float32   // valid when Params.Logprobs
	Top     []Logprob // Params.TopLogprobs entries, likeliest first
}

// Limits of Params beyond those of the OpenAI API. They bound the memory and
// the time that a request can ask for.
const (
	MaxTopLogprobs = 20
	MaxLogitBias   = 1024 // entries
	MaxStop        = 1024 // tokens
)

// ParamError refuses a parameter.
type ParamError struct {
	Param  string // as the API spells it: "top_p"
	Reason string
}

// Error gives the parameter and the reason.
func (e *ParamError) Error() string { return e.Param + " " + e.Reason }

// Validate returns a *ParamError when a parameter is out of range. A Sampler
// copes with any Params; Validate is for telling the caller.
func (p *Params) Validate() error {
	for _, r := range []struct {
		param     string
		value     float32
		low, high float32
	}{
		{"temperature", p.Temperature, 0, 100},
		{"top_p", p.TopP, 0, 1},
		{"min_p", p.MinP, 0, 1},
		{"presence_penalty", p.PresencePenalty, -2, 2},
		{"frequency_penalty", p.FrequencyPenalty, -2, 2},
		{"repetition_penalty", p.RepetitionPenalty, 0, 100},
	} {
		if !(r.value >= r.low && r.value <= r.high) { // NaN is refused too
			return &ParamError{r.param, fmt.Sprintf("is %v: %v to %v", r.value, r.low, r.high)}
		}
	}
	for _, r := range []struct {
		param       string
		value, high int
	}{
		{"top_k", p.TopK, math.MaxInt32},
		{"top_logprobs", p.TopLogprobs, MaxTopLogprobs},
		{"min_tokens", p.MinTokens, math.MaxInt32},
	} {
		if r.value < 0 || r.value > r.high {
			return &ParamError{r.param, fmt.Sprintf("is %d: 0 to %d", r.value, r.high)}
		}
	}
	if p.TopLogprobs > 0 && !p.Logprobs {
		return &ParamError{"top_logprobs", "needs logprobs"}
	}
	if len(p.Stop) > MaxStop {
		return &ParamError{"stop_token_ids", fmt.Sprintf("has %d entries: at most %d", len(p.Stop), MaxStop)}
	}
	if len(p.LogitBias) > MaxLogitBias {
		return &ParamError{"logit_bias", fmt.Sprintf("has %d entries: at most %d", len(p.LogitBias), MaxLogitBias)}
	}
	for id, b := range p.LogitBias {
		if id < 0 || !(b >= -100 && b <= 100) {
			return &ParamError{"logit_bias", fmt.Sprintf("holds %d: %v; tokens are not negative, biases -100 to 100", id, b)}
		}
	}
	return nil
}
