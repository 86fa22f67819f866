package gateway

import (
	"math"
	"strconv"

	"github.com/moaserve/moaserve/runtime/sample"
)

// ignoredFields are known and have no effect here, as docs/api.md says.
var ignoredFields = []string{
	"user", "metadata", "store", "service_tier", "prompt_cache_retention", "prompt_cache_options",
	"safety_identifier", "verbosity", "moderation", "parallel_tool_calls", "reasoning_effort", "session_id",
	"cache_salt", "cache_prompt", "priority", "skip_special_tokens", "spaces_between_special_tokens",
}

// refusal is a field that changes the answer in a way this server cannot, with
// the values that ask for nothing (compact JSON).
type refusal struct {
	field, why string
	harmless   []string
}

var (
	whyConstrained = "constrained decoding is not available"
	refusedFields  = []refusal{
		{"response_format", whyConstrained + "; only {\"type\":\"text\"} is", []string{`{"type":"text"}`}},
		{"structured_outputs", whyConstrained, nil},
		{"guided_json", whyConstrained, nil},
		{"guided_regex", whyConstrained, nil},
		{"guided_choice", whyConstrained, nil},
		{"guided_grammar", whyConstrained, nil},
		{"grammar", whyConstrained, []string{`""`}},
		{"json_schema", whyConstrained, nil},
		{"regex", whyConstrained, nil},
		{"ebnf", whyConstrained, nil},
		{"functions", "send no functions", []string{"[]"}},
		{"function_call", "send no functions", []string{`"none"`, `"auto"`}},
		{"modalities", "only text is generated", []string{`["text"]`}},
		{"audio", "only text is generated", nil},
		{"prediction", "predicted outputs are not available", nil},
		{"web_search_options", "the server does not search the web", nil},
		{"prompt_logprobs", "log-probabilities of the prompt are not computed", []string{"false", "0"}},
		{"chat_template", "the model's own chat template is always used", []string{`""`}},
		{"continue_final_message", "the last message is never continued", []string{"false"}},
		{"use_beam_search", "there is no beam search", []string{"false"}},
		{"length_penalty", "there is no beam search", []string{"1", "1.0", "0", "0.0"}},
		{"truncate_prompt_tokens", "prompts are never truncated", nil},
		{"bad_words", "use logit_bias", []string{"[]"}},
		{"allowed_token_ids", "use logit_bias", []string{"[]"}},
		{"logits_processors", "use logit_bias", []string{"[]"}},
		{"typical_p", "the sampler has temperature, top_k, top_p and min_p", []string{"1", "1.0"}},
		{"mirostat", "the sampler has temperature, top_k, top_p and min_p", []string{"0"}},
	}
)

// params are the fields that chat and plain completions share.
type params struct {
	model        string
	n            int
	maxTokens    int // 0 when absent
	stop         []string
	includeStop  bool
	ignoreEOS    bool
	stopTokens   []int32
	sampling     sample.Params // without the seed
	seed         uint64
	seeded       bool
	stream       bool
	includeUsage bool
	progress     bool
	session      string   // of the body
	ignored      []string // unknown fields
}

// decodeParams takes the shared fields out of o. Logprobs are read by the
// callers, whose shapes differ.
func decodeParams(o *object, l *Limits, vocab int) params {
	var p params
	p.model, _ = o.text("model", 512)
	p.n = int(o.integer("n", 1, 128, 1))
	p.stop = o.strings("stop", l.StopStrings, l.StopBytes)
	p.includeStop = o.boolean("include_stop_str_in_output", false)
	p.ignoreEOS = o.boolean("ignore_eos", false)
	p.stopTokens = o.tokens("stop_token_ids", l.StopTokens, vocab)

	p.sampling = sample.Params{
		Temperature:      float32(o.number("temperature", 0, 2, 1)),
		TopP:             float32(o.number("top_p", 0, 1, 1)),
		TopK:             int(o.integer("top_k", -1, math.MaxInt32, 0)),
		MinP:             float32(o.number("min_p", 0, 1, 0)),
		PresencePenalty:  float32(o.number("presence_penalty", -2, 2, 0)),
		FrequencyPenalty: float32(o.number("frequency_penalty", -2, 2, 0)),
		LogitBias:        decodeLogitBias(o, l.LogitBias, vocab),
		MinTokens:        int(o.integer("min_tokens", 0, math.MaxInt32, 0)),
	}
	p.sampling.TopK = max(p.sampling.TopK, 0) // -1 is another way to say off
	// llama.cpp's and Hugging Face's names for the same thing. Above 2 text falls
	// apart; 0 would divide by it.
	p.sampling.RepetitionPenalty = float32(o.number("repetition_penalty", 0.01, 10, 1))
	if v := o.number("repeat_penalty", 0.01, 10, 1); v != 1 {
		p.sampling.RepetitionPenalty = float32(v)
	}
	if _, p.seeded = o.fields["seed"]; p.seeded {
		p.seeded = string(o.fields["seed"]) != "null"
		p.seed = uint64(o.integer("seed", math.MinInt64, math.MaxInt64, 0))
	}

	p.stream = o.boolean("stream", false)
	if options, ok := o.object("stream_options"); ok && options != nil {
		if !p.stream {
			o.fail(errorf(kindInvalidValue, "stream_options", "'stream_options' is only allowed when 'stream' is true."))
		}
		p.includeUsage = options.boolean("include_usage", false)
		options.refuse("continuous_usage_stats", "usage comes once, at the end", "false")
		if options.err != nil {
			o.fail(options.err)
		}
	}
	p.progress = o.boolean("return_progress", false)
	if p.progress && !p.stream {
		o.fail(errorf(kindInvalidValue, "return_progress", "'return_progress' is only allowed when 'stream' is true."))
	}

	if key, ok := o.text("prompt_cache_key", maxSessionName); ok {
		p.session = key
		if !validSession(key) {
			o.failValue("prompt_cache_key", whatSession)
		}
	}

	for _, r := range refusedFields {
		o.refuse(r.field, r.why, r.harmless...)
	}
	o.drop(ignoredFields...)
	return p
}

// checkLengths compares min_tokens with max_tokens once both are known.
func (p *params) checkLengths(o *object) {
	if p.maxTokens > 0 && p.sampling.MinTokens > p.maxTokens {
		o.fail(errorf(kindInvalidValue, "min_tokens", "'min_tokens' must not exceed the maximum of %d tokens.", p.maxTokens))
	}
}

// decodeLogitBias reads {"token id": bias}.
func decodeLogitBias(o *object, limit, vocab int) map[int32]float32 {
	const field = "logit_bias"
	nested, ok := o.object(field)
	if !ok || nested == nil || len(nested.fields) == 0 {
		return nil
	}
	if len(nested.fields) > limit {
		o.fail(errorf(kindTooMany, field, "'%s' has %d entries; at most %d are accepted.", field, len(nested.fields), limit))
		return nil
	}
	bias := make(map[int32]float32, len(nested.fields))
	for key, raw := range nested.fields {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 || id >= int64(vocab) {
			o.failValue(field, "an object whose keys are token ids between 0 and "+strconv.Itoa(vocab-1))
			return nil
		}
		v, ok := parseNumber(raw)
		if !ok || v < -100 || v > 100 {
			o.failValue(field, "an object whose values are numbers between -100 and 100")
			return nil
		}
		bias[int32(id)] = float32(v)
	}
	return bias
}
