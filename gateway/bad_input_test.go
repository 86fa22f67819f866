package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestBadInputIsRefusedWithTheFieldAndTheReason(t *testing.T) {
	const chat, plain = "/v1/chat/completions", "/v1/completions"
	user := func(content string) string { return `{"messages":[{"role":"user","content":` + content + `}]}` }
	with := func(field string) string { return `{` + hello + `,` + field + `}` }
	text := func(field string) string { return `{"prompt":"x",` + field + `}` }
	many := func(n int, s string) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }

	for _, tc := range []struct {
		name, path, body string
		status           int
		code, param      string
	}{
		// The body as a whole.
		{"empty object", chat, `{}`, 400, "missing_required_parameter", "messages"},
		{"not JSON", chat, `hello`, 400, "invalid_json", ""},
		{"cut JSON", chat, `{"messages":[`, 400, "invalid_json", ""},
		{"trailing data", chat, `{` + hello + `} {}`, 400, "invalid_json", ""},
		{"an array", chat, `[]`, 400, "invalid_json", ""},
		{"blank", chat, `   `, 400, "invalid_json", ""},
		{"not UTF-8", chat, user("\"\xff\""), 400, "invalid_json", ""},
		{"too deep", chat, with(`"metadata":` + strings.Repeat("[", 70) + strings.Repeat("]", 70)), 400, "invalid_json", ""},
		{"too large", chat, user(`"` + strings.Repeat("x", 1<<20) + `"`), 413, "request_too_large", ""},

		// Messages.
		{"messages a string", chat, `{"messages":"hi"}`, 400, "invalid_type", "messages"},
		{"messages null", chat, `{"messages":null}`, 400, "missing_required_parameter", "messages"},
		{"no messages", chat, `{"messages":[]}`, 400, "invalid_value", "messages"},
		{"too many messages", chat, `{"messages":[` + many(17, `{"role":"user","content":""}`) + `]}`, 400, "array_above_max_length", "messages"},
		{"message a string", chat, `{"messages":["hi"]}`, 400, "invalid_type", "messages[0]"},
		{"no role", chat, `{"messages":[{"content":"x"}]}`, 400, "missing_required_parameter", "messages[0].role"},
		{"role a number", chat, `{"messages":[{"role":1,"content":"x"}]}`, 400, "invalid_type", "messages[0].role"},
		{"unknown role", chat, `{"messages":[{"role":"user","content":"x"},{"role":"robot","content":"x"}]}`, 400, "invalid_value", "messages[1].role"},
		{"no content", chat, `{"messages":[{"role":"user"}]}`, 400, "missing_required_parameter", "messages[0].content"},
		{"content null", chat, user(`null`), 400, "missing_required_parameter", "messages[0].content"},
		{"content a number", chat, user(`1`), 400, "invalid_type", "messages[0].content"},
		{"content part a string", chat, user(`["x"]`), 400, "invalid_type", "messages[0].content[0]"},
		{"part without type", chat, user(`[{"text":"x"}]`), 400, "missing_required_parameter", "messages[0].content[0].type"},
		{"part without text", chat, user(`[{"type":"text"}]`), 400, "missing_required_parameter", "messages[0].content[0].text"},
		{"part text a number", chat, user(`[{"type":"text","text":1}]`), 400, "invalid_type", "messages[0].content[0].text"},
		{"image part", chat, user(`[{"type":"image_url","image_url":{"url":"http://x"}}]`), 400, "unsupported_parameter", "messages[0].content[0].type"},
		{"audio part", chat, user(`[{"type":"input_audio","input_audio":{}}]`), 400, "unsupported_parameter", "messages[0].content[0].type"},
		{"too many parts", chat, user(`[` + many(9, `{"type":"text","text":""}`) + `]`), 400, "array_above_max_length", "messages[0].content"},
		{"tool without id", chat, `{"messages":[{"role":"tool","content":"x"}]}`, 400, "missing_required_parameter", "messages[0].tool_call_id"},
		{"name a number", chat, `{"messages":[{"role":"user","content":"x","name":1}]}`, 400, "invalid_type", "messages[0].name"},
		{"tool_calls a string", chat, `{"messages":[{"role":"assistant","tool_calls":"x"}]}`, 400, "invalid_type", "messages[0].tool_calls"},
		{"add_generation_prompt", chat, with(`"add_generation_prompt":1`), 400, "invalid_type", "add_generation_prompt"},
		{"kwargs a list", chat, with(`"chat_template_kwargs":[]`), 400, "invalid_type", "chat_template_kwargs"},
		{"kwargs too long", chat, with(`"chat_template_kwargs":{"x":"` + strings.Repeat("x", 2000) + `"}`), 400, "string_above_max_length", "chat_template_kwargs"},

		// Sampling.
		{"model a number", chat, with(`"model":5`), 400, "invalid_type", "model"},
		{"unknown model", chat, with(`"model":"gpt-4"`), 404, "model_not_found", "model"},
		{"unknown plan", chat, with(`"model":"tiny:nope"`), 404, "model_not_found", "model"},
		{"model in other case", chat, with(`"model":"TINY"`), 404, "model_not_found", "model"},
		{"temperature a string", chat, with(`"temperature":"hot"`), 400, "invalid_type", "temperature"},
		{"temperature high", chat, with(`"temperature":2.1`), 400, "invalid_value", "temperature"},
		{"temperature negative", chat, with(`"temperature":-0.1`), 400, "invalid_value", "temperature"},
		{"temperature huge", chat, with(`"temperature":1e999`), 400, "invalid_type", "temperature"},
		{"top_p high", chat, with(`"top_p":1.5`), 400, "invalid_value", "top_p"},
		{"top_k a fraction", chat, with(`"top_k":1.5`), 400, "invalid_type", "top_k"},
		{"top_k below", chat, with(`"top_k":-2`), 400, "invalid_value", "top_k"},
		{"min_p high", chat, with(`"min_p":2`), 400, "invalid_value", "min_p"},
		{"presence_penalty", chat, with(`"presence_penalty":3`), 400, "invalid_value", "presence_penalty"},
		{"frequency_penalty", chat, with(`"frequency_penalty":-3`), 400, "invalid_value", "frequency_penalty"},
		{"repetition_penalty", chat, with(`"repetition_penalty":0`), 400, "invalid_value", "repetition_penalty"},
		{"repeat_penalty", chat, with(`"repeat_penalty":"x"`), 400, "invalid_type", "repeat_penalty"},
		{"seed a string", chat, with(`"seed":"7"`), 400, "invalid_type", "seed"},
		{"seed beyond int64", chat, with(`"seed":9223372036854775808`), 400, "invalid_type", "seed"},
		{"logit_bias a list", chat, with(`"logit_bias":[]`), 400, "invalid_type", "logit_bias"},
		{"logit_bias key", chat, with(`"logit_bias":{"x":1}`), 400, "invalid_value", "logit_bias"},
		{"logit_bias key beyond the vocabulary", chat, with(`"logit_bias":{"258":1}`), 400, "invalid_value", "logit_bias"},
		{"logit_bias value", chat, with(`"logit_bias":{"1":101}`), 400, "invalid_value", "logit_bias"},
		{"logit_bias too many", chat, with(`"logit_bias":{"1":1,"2":1,"3":1,"4":1,"5":1}`), 400, "array_above_max_length", "logit_bias"},

		// Length and stops.
		{"max_tokens zero", chat, with(`"max_tokens":0`), 400, "invalid_value", "max_tokens"},
		{"max_tokens negative", chat, with(`"max_tokens":-1`), 400, "invalid_value", "max_tokens"},
		{"max_tokens a string", chat, with(`"max_tokens":"5"`), 400, "invalid_type", "max_tokens"},
		{"max_completion_tokens", chat, with(`"max_completion_tokens":1.5`), 400, "invalid_type", "max_completion_tokens"},
		{"max_tokens beyond the context", chat, with(`"max_tokens":4096`), 400, "context_length_exceeded", "messages"},
		{"prompt beyond the context", chat, user(`"` + strings.Repeat("x", 5000) + `"`), 400, "context_length_exceeded", "messages"},
		{"min_tokens above max_tokens", chat, with(`"min_tokens":6,"max_tokens":5`), 400, "invalid_value", "min_tokens"},
		{"stop a number", chat, with(`"stop":1`), 400, "invalid_type", "stop"},
		{"stop with a number", chat, with(`"stop":["a",1]`), 400, "invalid_type", "stop"},
		{"stop empty", chat, with(`"stop":""`), 400, "invalid_value", "stop"},
		{"stop too many", chat, with(`"stop":["a","b","c"]`), 400, "array_above_max_length", "stop"},
		{"stop too long", chat, with(`"stop":"123456789"`), 400, "string_above_max_length", "stop"},
		{"stop_token_ids range", chat, with(`"stop_token_ids":[999]`), 400, "invalid_value", "stop_token_ids"},
		{"stop_token_ids type", chat, with(`"stop_token_ids":["a"]`), 400, "invalid_value", "stop_token_ids"},
		{"stop_token_ids too many", chat, with(`"stop_token_ids":[1,2,3,4]`), 400, "array_above_max_length", "stop_token_ids"},
		{"ignore_eos", chat, with(`"ignore_eos":"yes"`), 400, "invalid_type", "ignore_eos"},

		// Choices.
		{"n zero", chat, with(`"n":0`), 400, "invalid_value", "n"},
		{"n above OpenAI's bound", chat, with(`"n":129`), 400, "invalid_value", "n"},
		{"n above the limit", chat, with(`"n":9`), 400, "array_above_max_length", "n"},
		{"n times max_tokens", chat, with(`"n":8,"max_tokens":4000`), 400, "invalid_value", "n"},
		{"n times prompts", plain, `{"prompt":["a","b","c"],"n":3}`, 400, "array_above_max_length", "n"},

		// Streams and logprobs.
		{"stream a string", chat, with(`"stream":"true"`), 400, "invalid_type", "stream"},
		{"stream_options without stream", chat, with(`"stream_options":{"include_usage":true}`), 400, "invalid_value", "stream_options"},
		{"stream_options a list", chat, with(`"stream":true,"stream_options":[]`), 400, "invalid_type", "stream_options"},
		{"include_usage", chat, with(`"stream":true,"stream_options":{"include_usage":1}`), 400, "invalid_type", "stream_options.include_usage"},
		{"continuous_usage_stats", chat, with(`"stream":true,"stream_options":{"continuous_usage_stats":true}`), 400, "unsupported_parameter", "stream_options.continuous_usage_stats"},
		{"return_progress without stream", chat, with(`"return_progress":true`), 400, "invalid_value", "return_progress"},
		{"top_logprobs without logprobs", chat, with(`"top_logprobs":2`), 400, "invalid_value", "top_logprobs"},
		{"top_logprobs too many", chat, with(`"logprobs":true,"top_logprobs":21`), 400, "invalid_value", "top_logprobs"},
		{"logprobs a number in chat", chat, with(`"logprobs":3`), 400, "invalid_type", "logprobs"},
		{"logprobs true in completions", plain, text(`"logprobs":true`), 400, "invalid_type", "logprobs"},
		{"logprobs too many", plain, text(`"logprobs":21`), 400, "invalid_value", "logprobs"},

		// What is not supported.
		{"tools", chat, with(`"tools":[{"type":"function"}]`), 400, "unsupported_parameter", "tools"},
		{"tools a string", chat, with(`"tools":"x"`), 400, "invalid_type", "tools"},
		{"too many tools", chat, with(`"tool_choice":"none","tools":[` + many(3, `{}`) + `]`), 400, "array_above_max_length", "tools"},
		{"tool_choice required", chat, with(`"tool_choice":"required"`), 400, "unsupported_parameter", "tool_choice"},
		{"tool_choice named", chat, with(`"tool_choice":{"type":"function"}`), 400, "unsupported_parameter", "tool_choice"},
		{"functions", chat, with(`"functions":[{}]`), 400, "unsupported_parameter", "functions"},
		{"json_object", chat, with(`"response_format":{"type":"json_object"}`), 400, "unsupported_parameter", "response_format"},
		{"json_schema", chat, with(`"response_format":{"type":"json_schema","json_schema":{}}`), 400, "unsupported_parameter", "response_format"},
		{"guided_regex", chat, with(`"guided_regex":"a+"`), 400, "unsupported_parameter", "guided_regex"},
		{"structured_outputs", chat, with(`"structured_outputs":{}`), 400, "unsupported_parameter", "structured_outputs"},
		{"audio out", chat, with(`"modalities":["text","audio"]`), 400, "unsupported_parameter", "modalities"},
		{"chat_template", chat, with(`"chat_template":"{{ x }}"`), 400, "unsupported_parameter", "chat_template"},
		{"prediction", chat, with(`"prediction":{}`), 400, "unsupported_parameter", "prediction"},
		{"truncation", chat, with(`"truncate_prompt_tokens":5`), 400, "unsupported_parameter", "truncate_prompt_tokens"},
		{"prompt_logprobs", plain, text(`"prompt_logprobs":1`), 400, "unsupported_parameter", "prompt_logprobs"},

		// Plain completions.
		{"no prompt", plain, `{"model":"tiny"}`, 400, "missing_required_parameter", "prompt"},
		{"prompt a number", plain, `{"prompt":5}`, 400, "invalid_type", "prompt"},
		{"prompt an object", plain, `{"prompt":{}}`, 400, "invalid_type", "prompt"},
		{"prompt list empty", plain, `{"prompt":[]}`, 400, "invalid_value", "prompt"},
		{"prompt ids empty", plain, `{"prompt":[[]]}`, 400, "invalid_value", "prompt"},
		{"prompt id beyond the vocabulary", plain, `{"prompt":[258]}`, 400, "invalid_value", "prompt"},
		{"prompt id negative", plain, `{"prompt":[-1]}`, 400, "invalid_value", "prompt"},
		{"prompt ids mixed", plain, `{"prompt":[1,"a"]}`, 400, "invalid_value", "prompt"},
		{"prompt list mixed", plain, `{"prompt":["a",1]}`, 400, "invalid_type", "prompt[1]"},
		{"nested id wrong", plain, `{"prompt":[[1],[999]]}`, 400, "invalid_value", "prompt[1]"},
		{"too many prompts", plain, `{"prompt":["a","b","c","d","e"]}`, 400, "array_above_max_length", "prompt"},
		{"suffix", plain, text(`"suffix":"end"`), 400, "unsupported_parameter", "suffix"},
		{"best_of", plain, text(`"best_of":2`), 400, "unsupported_parameter", "best_of"},
		{"echo with logprobs", plain, text(`"echo":true,"logprobs":1`), 400, "unsupported_parameter", "echo"},
		{"echo a string", plain, text(`"echo":"x"`), 400, "invalid_type", "echo"},
		{"prompt too long", plain, `{"prompt":"` + strings.Repeat("x", 5000) + `"}`, 400, "context_length_exceeded", "prompt"},

		// The smaller endpoints.
		{"tokenize nothing", "/tokenize", `{}`, 400, "missing_required_parameter", "prompt"},
		{"tokenize a number", "/tokenize", `{"prompt":1}`, 400, "invalid_type", "prompt"},
		{"tokenize bad messages", "/tokenize", `{"messages":[{}]}`, 400, "missing_required_parameter", "messages[0].role"},
		{"tokenize for an unknown model", "/tokenize", `{"prompt":"x","model":"y"}`, 404, "model_not_found", "model"},
		{"detokenize nothing", "/detokenize", `{}`, 400, "missing_required_parameter", "tokens"},
		{"detokenize beyond the vocabulary", "/detokenize", `{"tokens":[1000]}`, 400, "invalid_value", "tokens"},
		{"detokenize a string", "/detokenize", `{"tokens":"x"}`, 400, "invalid_type", "tokens"},
		{"count without messages", chat + "/input_tokens", `{}`, 400, "missing_required_parameter", "messages"},
		{"count for an unknown model", chat + "/input_tokens", `{"model":"x",` + hello + `}`, 404, "model_not_found", "model"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := badInputServer(t).post(t, tc.path, tc.body)
			e := parseError(t, r.body)
			param := ""
			if e.Param != nil {
				param = *e.Param
			}
			if r.status != tc.status || e.Code != tc.code || param != tc.param {
				t.Errorf("got %d %s %q, want %d %s %q: %s", r.status, e.Code, param, tc.status, tc.code, tc.param, e.Message)
			}
			if ct := r.header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
			if r.header.Get("X-Request-Id") == "" {
				t.Error("no request id")
			}
		})
	}
}

// badInputServer starts a server with limits that short bodies exceed.
func badInputServer(t *testing.T) *testServer {
	return newServer(t, newFake(), Options{Limits: Limits{
		BodyBytes: 64 << 10, Messages: 16, ContentParts: 8, Prompts: 4, Choices: 8, RequestTokens: 16 << 10,
		StopStrings: 2, StopBytes: 8, StopTokens: 3, LogitBias: 4, Tools: 2, KwargsBytes: 1 << 10,
	}})
}

func TestContextOverflowGivesBothNumbers(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	r := ts.post(t, "/v1/chat/completions", `{`+hello+`,"max_tokens":4090}`)
	if e := parseError(t, r.body); e.PromptTokens != helloTokens || e.Context != fakeContext {
		t.Errorf("n_prompt_tokens %d, n_ctx %d: %s", e.PromptTokens, e.Context, r.body)
	}
	// One token less than the context in all is accepted.
	r = ts.post(t, "/v1/chat/completions", fmt.Sprintf(`{%s,"max_tokens":%d}`, hello, fakeContext-helloTokens))
	if r.status != 200 {
		t.Errorf("a request that just fits: %d %s", r.status, r.body)
	}
}

func TestWrongTargetsAndMethodsAreJSONErrors(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	for _, tc := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/", 404, "unknown_url"},
		{"GET", "/v1", 404, "unknown_url"},
		{"POST", "/v1/embeddings", 404, "unknown_url"},
		{"POST", "/v1/chat/completions/", 404, "unknown_url"}, // strict routing
		{"POST", "/V1/chat/completions", 404, "unknown_url"},  // case-sensitive
		{"GET", "/v1/models/", 404, "unknown_url"},
		{"GET", "/v1/models/nope", 404, "model_not_found"},
		{"GET", "/v1/chat/completions", 405, "method_not_allowed"},
		{"DELETE", "/v1/models/tiny", 405, "method_not_allowed"},
		{"PUT", "/tokenize", 405, "method_not_allowed"},
		{"POST", "/health", 405, "method_not_allowed"},
		{"OPTIONS", "/v1/models", 405, "method_not_allowed"}, // CORS is off
		{"BREW", "/v1/models", 405, "method_not_allowed"},
	} {
		r := ts.do(t, tc.method, tc.path, "")
		e := parseError(t, r.body)
		if r.status != tc.status || e.Code != tc.code {
			t.Errorf("%s %s: %d %s, want %d %s", tc.method, tc.path, r.status, e.Code, tc.status, tc.code)
		}
	}
	if r := ts.do(t, "GET", "/v1/chat/completions", ""); r.header.Get("Allow") != "POST" {
		t.Errorf("Allow %q", r.header.Get("Allow"))
	}
}

func TestBodiesOfOtherKindsAreRefused(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	for _, tc := range []struct {
		name, header, value string
		status              int
		code                string
	}{
		{"form", "Content-Type", "application/x-www-form-urlencoded", 415, "unsupported_media_type"},
		{"multipart", "Content-Type", "multipart/form-data; boundary=x", 415, "unsupported_media_type"},
		{"text", "Content-Type", "text/plain", 415, "unsupported_media_type"},
		{"gzip", "Content-Encoding", "gzip", 415, "unsupported_content_encoding"},
		{"br", "Content-Encoding", "br", 415, "unsupported_content_encoding"},
		{"zstd after identity", "Content-Encoding", "identity, zstd", 415, "unsupported_content_encoding"},
	} {
		r := ts.post(t, "/v1/chat/completions", `{`+hello+`}`, tc.header, tc.value)
		if e := parseError(t, r.body); r.status != tc.status || e.Code != tc.code {
			t.Errorf("%s: %d %s", tc.name, r.status, e.Code)
		}
	}
	for _, accepted := range []string{"application/json; charset=utf-8", "Application/JSON"} {
		if r := ts.post(t, "/v1/chat/completions", `{`+hello+`}`, "Content-Type", accepted); r.status != 200 {
			t.Errorf("%s: %d", accepted, r.status)
		}
	}
	if r := ts.do(t, http.MethodPost, "/v1/chat/completions", "", "Content-Type", "application/json"); r.status != 400 {
		t.Errorf("Content-Length 0: %d", r.status)
	}
}

func TestEveryErrorOfTheCatalogueHasTheWireShape(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range errorKinds {
		e := parseError(t, newError(k).appendJSON(nil))
		if seen[e.Code] {
			t.Errorf("%s is there twice", e.Code)
		}
		seen[e.Code] = true
		if k.status < 400 || k.status > 599 {
			t.Errorf("%s has status %d", e.Code, k.status)
		}
	}
}
