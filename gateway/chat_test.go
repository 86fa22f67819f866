package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/runtime"
)

const hello = `"messages":[{"role":"user","content":"Hello"}]`

// "user:Hello\nassistant:" and the beginning-of-sequence token.
const helloTokens = 22

// normalise replaces what differs from one response to the next.
func normalise(s string) string {
	s = regexp.MustCompile(`(chatcmpl|cmpl)-[0-9a-f]{32}`).ReplaceAllString(s, "$1-ID")
	return regexp.MustCompile(`"created":\d+`).ReplaceAllString(s, `"created":0`)
}

func TestChatCompletionHasTheOfficialShape(t *testing.T) {
	f := newFake()
	f.cached = 4
	ts := newServer(t, f, Options{})
	r := ts.post(t, "/v1/chat/completions", `{"model":"tiny",`+hello+`,"max_tokens":2}`)
	want := `{"id":"chatcmpl-ID","object":"chat.completion","created":0,"model":"tiny","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"w0 w1 ","refusal":null},"logprobs":null,"finish_reason":"length"}],` +
		`"usage":{"prompt_tokens":22,"completion_tokens":2,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":4}}}`
	if r.status != 200 || normalise(string(r.body)) != want {
		t.Errorf("got %d %s\nwant %s", r.status, normalise(string(r.body)), want)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("content type %q", ct)
	}
}

func TestChatStreamHasTheOfficialShape(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	head := `{"id":"chatcmpl-ID","object":"chat.completion.chunk","created":0,"model":"tiny:dense","choices":[`
	for _, tc := range []struct {
		name, extra, null string
		usage             []string
	}{
		{"without usage", "", "", nil},
		{"with usage", `,"stream_options":{"include_usage":true}`, `,"usage":null`, []string{
			head + `],"usage":{"prompt_tokens":22,"completion_tokens":2,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":0}}}`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := ts.post(t, "/v1/chat/completions", `{"model":"tiny:dense","stream":true,`+hello+`,"max_completion_tokens":2`+tc.extra+`}`)
			want := []string{
				head + `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]` + tc.null + `}`,
				head + `{"index":0,"delta":{"content":"w0 "},"logprobs":null,"finish_reason":null}]` + tc.null + `}`,
				head + `{"index":0,"delta":{"content":"w1 "},"logprobs":null,"finish_reason":null}]` + tc.null + `}`,
				head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]` + tc.null + `}`,
			}
			want = append(append(want, tc.usage...), "[DONE]")
			if diff := cmp.Diff(want, frames(t, []byte(normalise(string(r.body))))); diff != "" {
				t.Error(diff)
			}
			for k, v := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"} {
				if got := r.header.Get(k); got != v {
					t.Errorf("%s: %q, want %q", k, got, v)
				}
			}
		})
	}
}

func TestCompletionHasTheOfficialShape(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	r := ts.post(t, "/v1/completions", `{"model":"tiny","prompt":["ab",[99,100]],"n":2,"max_tokens":1,"echo":true}`)
	choice := func(i int, text string) string {
		return fmt.Sprintf(`{"index":%d,"text":"%s","logprobs":null,"finish_reason":"length"}`, i, text)
	}
	// The text prompt has a beginning-of-sequence token, the ids are taken as they are.
	want := `{"id":"cmpl-ID","object":"text_completion","created":0,"model":"tiny","choices":[` +
		strings.Join([]string{choice(0, "abw0 "), choice(1, "abw0 "), choice(2, "cdw0 "), choice(3, "cdw0 ")}, ",") +
		`],"usage":{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9,"prompt_tokens_details":{"cached_tokens":0}}}`
	if got := normalise(string(r.body)); r.status != 200 || got != want {
		t.Errorf("got %d %s\nwant %s", r.status, got, want)
	}
}

func TestCompletionStreamHasTheOfficialShape(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	r := ts.post(t, "/v1/completions", `{"model":"tiny","prompt":"ab","stream":true,"max_tokens":1,"echo":true}`)
	head := `{"id":"cmpl-ID","object":"text_completion","created":0,"model":"tiny","choices":[{"index":0,"text":`
	want := []string{
		head + `"ab","logprobs":null,"finish_reason":null}]}`,
		head + `"w0 ","logprobs":null,"finish_reason":null}]}`,
		head + `"","logprobs":null,"finish_reason":"length"}]}`,
		"[DONE]",
	}
	if diff := cmp.Diff(want, frames(t, []byte(normalise(string(r.body))))); diff != "" {
		t.Error(diff)
	}
}

func TestPlainCompletionsDefaultToSixteenTokens(t *testing.T) {
	f := newFake()
	f.tokens = 100
	ts := newServer(t, f, Options{})
	ts.post(t, "/v1/completions", `{"prompt":"ab"}`)
	if got := f.requests()[0].MaxTokens; got != 16 {
		t.Errorf("max_tokens %d, want OpenAI's default of 16", got)
	}
}

func TestParametersReachTheEngine(t *testing.T) {
	f := newFake()
	key, err := NewAPIKey("secret", "acme")
	if err != nil {
		t.Fatal(err)
	}
	ts := newServer(t, f, Options{APIKeys: []APIKey{key}})
	r := ts.post(t, "/v1/chat/completions", `{"model":"org/tiny:moa-50",`+hello+`,"max_tokens":50,"max_completion_tokens":60,
		"temperature":0.5,"top_p":0.75,"top_k":40,"min_p":0.25,"presence_penalty":-1,"frequency_penalty":1.5,
		"repetition_penalty":1.25,"logit_bias":{"7":-100,"8":2.5},"seed":-3,"stop":"END","include_stop_str_in_output":true,
		"ignore_eos":true,"stop_token_ids":[5,6],"min_tokens":3,"logprobs":true,"top_logprobs":2,"stream":true,"return_progress":true}`,
		"Authorization", "Bearer secret", "X-Request-Id", "req-1")
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	got := f.requests()[0]
	want := runtime.Request{
		ID: "req-1", Plan: "moa-50", MaxTokens: 60, Stop: []string{"END"}, IncludeStop: true, IgnoreEOS: true,
		StopTokenIDs: []int32{5, 6}, Tenant: "acme", Progress: true,
	}
	want.Prompt = got.Prompt
	s := &want.Sampling
	s.Temperature, s.TopP, s.TopK, s.MinP = .5, .75, 40, .25
	s.PresencePenalty, s.FrequencyPenalty, s.RepetitionPenalty = -1, 1.5, 1.25
	s.LogitBias = map[int32]float32{7: -100, 8: 2.5}
	seed := int64(-3)
	s.Seed, s.Logprobs, s.TopLogprobs, s.MinTokens = uint64(seed), true, 2, 3
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(got.Prompt) != helloTokens {
		t.Errorf("prompt of %d tokens, want %d", len(got.Prompt), helloTokens)
	}
	if id := r.header.Get("X-Request-Id"); id != "req-1" {
		t.Errorf("request id %q", id)
	}
}

func TestAbsentAndNullParametersMeanTheDefaults(t *testing.T) {
	f := newFake()
	ts := newServer(t, f, Options{})
	for _, body := range []string{
		`{` + hello + `}`,
		`{` + hello + `,"model":null,"temperature":null,"top_p":null,"n":null,"stop":null,"seed":null,"logit_bias":null,"stream":null,
			"stream_options":null,"logprobs":null,"top_logprobs":null,"max_tokens":null,"response_format":null,"tools":null,"tool_choice":null}`,
	} {
		if r := ts.post(t, "/v1/chat/completions", body); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	seen := f.requests()
	if seen[0].Sampling.Seed == seen[1].Sampling.Seed {
		t.Error("two requests without a seed got the same one")
	}
	for _, r := range seen {
		s := r.Sampling
		if s.Temperature != 1 || s.TopP != 1 || s.TopK != 0 || s.RepetitionPenalty != 1 || r.MaxTokens != 0 || r.Plan != "" || r.Stop != nil {
			t.Errorf("defaults: %+v", r)
		}
	}
}

func TestChoicesOfOneRequestDifferInSeedAndTheFirstKeepsIt(t *testing.T) {
	f := newFake()
	ts := newServer(t, f, Options{})
	ts.post(t, "/v1/chat/completions", `{`+hello+`,"n":3,"seed":42,"max_tokens":1}`)
	seeds := map[uint64]bool{}
	for _, r := range f.requests() {
		seeds[r.Sampling.Seed] = true
	}
	if len(seeds) != 3 || !seeds[42] {
		t.Errorf("seeds %v", seeds)
	}
}

// chunkView is what a client reads of a chunk.
type chunkView struct {
	Choices []struct {
		Index        int
		Delta        struct{ Role, Content string }
		FinishReason *string `json:"finish_reason"`
		Logprobs     *struct {
			Content []struct {
				Token       string
				Logprob     float64
				Bytes       []int
				TopLogprobs []struct{ Token string } `json:"top_logprobs"`
			}
		}
	}
	Progress *struct{ Total, Cache, Processed, TimeMS int } `json:"prompt_progress"`
}

func decodeChunks(t *testing.T, body []byte) []chunkView {
	t.Helper()
	all := frames(t, body)
	if all[len(all)-1] != "[DONE]" {
		t.Fatalf("the stream does not end with [DONE]: %q", body)
	}
	views := make([]chunkView, len(all)-1)
	for i, f := range all[:len(all)-1] {
		if err := json.Unmarshal([]byte(f), &views[i]); err != nil {
			t.Fatalf("%v: %s", err, f)
		}
	}
	return views
}

func TestStreamsOfSeveralChoicesAreInterleavedByIndex(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	r := ts.post(t, "/v1/chat/completions", `{`+hello+`,"n":4,"stream":true,"max_tokens":3}`)
	texts, roles, finals := map[int]string{}, map[int]int{}, map[int]int{}
	for _, c := range decodeChunks(t, r.body) {
		for _, ch := range c.Choices {
			if finals[ch.Index] > 0 {
				t.Errorf("choice %d goes on after its finish_reason", ch.Index)
			}
			texts[ch.Index] += ch.Delta.Content
			if ch.Delta.Role != "" {
				roles[ch.Index]++
			}
			if ch.FinishReason != nil {
				finals[ch.Index]++
			}
		}
	}
	for i := range 4 {
		if texts[i] != "w0 w1 w2 " || roles[i] != 1 || finals[i] != 1 {
			t.Errorf("choice %d: text %q, %d roles, %d finals", i, texts[i], roles[i], finals[i])
		}
	}
}

func TestChatLogprobs(t *testing.T) {
	f := newFake()
	// The second token is the first half of "é": it has no text yet.
	f.text = func(i int) string { return []string{"a", "\xc3", "\xa9"}[i] }
	ts := newServer(t, f, Options{})
	body := `{` + hello + `,"max_tokens":3,"logprobs":true,"top_logprobs":1`
	for _, stream := range []bool{false, true} {
		r := ts.post(t, "/v1/chat/completions", body+fmt.Sprintf(`,"stream":%v}`, stream))
		var tokens []string
		collect := func(c chunkView) {
			for _, ch := range c.Choices {
				if ch.Logprobs == nil {
					continue
				}
				for _, tok := range ch.Logprobs.Content {
					tokens = append(tokens, fmt.Sprintf("%s %v %v %d", tok.Token, tok.Logprob, tok.Bytes, len(tok.TopLogprobs)))
				}
			}
		}
		if stream {
			for _, c := range decodeChunks(t, r.body) {
				collect(c)
			}
		} else {
			var c chunkView
			if err := json.Unmarshal(r.body, &c); err != nil {
				t.Fatal(err)
			}
			collect(c)
		}
		want := []string{`a -0.5 [97] 1`, `\xc3 -0.5 [195] 1`, `\xa9 -0.5 [169] 1`}
		if diff := cmp.Diff(want, tokens); diff != "" {
			t.Errorf("stream %v: %s", stream, diff)
		}
	}
}

func TestCompletionLogprobs(t *testing.T) {
	f := newFake()
	f.text = func(i int) string { return []string{"né", "\xc3", "x"}[i] }
	ts := newServer(t, f, Options{})
	want := `{"tokens":["né","bytes:\\xc3","x"],"token_logprobs":[-0.5,-0.5,-0.5],` +
		`"top_logprobs":[{"a":0,"né":-0.5},{"a":0,"bytes:\\xc3":-0.5},{"a":0,"x":-0.5}],"text_offset":[0,2,3]}`
	r := ts.post(t, "/v1/completions", `{"prompt":"p","max_tokens":3,"logprobs":1}`)
	if !strings.Contains(string(r.body), `"logprobs":`+want) {
		t.Errorf("got %s\nwant %s", r.body, want)
	}
	// A stream continues the offsets from chunk to chunk.
	r = ts.post(t, "/v1/completions", `{"prompt":"p","max_tokens":3,"logprobs":1,"stream":true}`)
	if !strings.Contains(string(r.body), `"top_logprobs":[{"a":0,"x":-0.5}],"text_offset":[3]`) {
		t.Errorf("stream: %s", r.body)
	}
}

func TestReturnProgressAddsLlamaServersChunks(t *testing.T) {
	f := newFake()
	f.cached = 8
	ts := newServer(t, f, Options{})
	body := `{` + hello + `,"stream":true,"return_progress":true,"max_tokens":1}`
	var got []string
	for _, c := range decodeChunks(t, ts.post(t, "/v1/chat/completions", body).body) {
		if c.Progress != nil {
			got = append(got, fmt.Sprint(c.Progress.Total, c.Progress.Cache, c.Progress.Processed, len(c.Choices)))
		}
	}
	if diff := cmp.Diff([]string{"22 8 8 1", "22 8 15 1"}, got); diff != "" {
		t.Error(diff)
	}
	// As comments, for parsers that know no such chunk.
	r := ts.post(t, "/v1/chat/completions", body, "X-Progress", "comment")
	if n := strings.Count(string(r.body), `: prompt_progress {"total":22,"cache":8,`); n != 2 {
		t.Errorf("%d progress comments in %s", n, r.body)
	}
	for _, c := range decodeChunks(t, r.body) {
		if c.Progress != nil {
			t.Error("a progress chunk although comments were asked for")
		}
	}
}

func TestErrorsBeforeAdmissionHaveTheirStatus(t *testing.T) {
	for _, tc := range []struct {
		name   string
		engine func(*fakeEngine)
		status int
		code   string
	}{
		{"queue full", func(f *fakeEngine) { f.refuse = fmt.Errorf("%w: 256 wait", runtime.ErrQueueFull) }, 503, "queue_full"},
		{"unknown plan", func(f *fakeEngine) { f.refuse = runtime.ErrUnknownPlan }, 404, "model_not_found"},
		{"closed", func(f *fakeEngine) { f.refuse = runtime.ErrClosed }, 503, "shutting_down"},
		{"too long", func(f *fakeEngine) {
			f.refuse = &runtime.ContextLengthError{PromptTokens: 9, MaxTokens: 1, Context: 8}
		}, 400, "context_length_exceeded"},
		{"anything else", func(f *fakeEngine) { f.refuse = errors.New("the secret path /x failed") }, 500, "engine_error"},
		{"second choice refused", func(f *fakeEngine) { f.refuse, f.refuseAfter = runtime.ErrQueueFull, 1 }, 503, "queue_full"},
		{"conversation refused", func(f *fakeEngine) { f.chat = errors.New("roles must alternate") }, 400, "invalid_conversation"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			tc.engine(f)
			ts := newServer(t, f, Options{})
			for _, stream := range []bool{false, true} {
				r := ts.post(t, "/v1/chat/completions", fmt.Sprintf(`{%s,"n":2,"stream":%v}`, hello, stream))
				e := parseError(t, r.body)
				if r.status != tc.status || e.Code != tc.code {
					t.Errorf("stream %v: %d %s, want %d %s", stream, r.status, e.Code, tc.status, tc.code)
				}
				if strings.Contains(e.Message, "secret") {
					t.Errorf("internals in %q", e.Message)
				}
				if r.status == 503 && r.header.Get("Retry-After") == "" {
					t.Error("503 without Retry-After")
				}
				f.started.Store(0)
			}
			eventually(t, "the other choice is cancelled", func() bool { return f.running.Load() == 0 })
		})
	}
}

func TestErrorsAfterTheFirstByteEndTheStreamWithAFrame(t *testing.T) {
	for _, tc := range []struct {
		name   string
		engine func(*fakeEngine)
	}{
		{"engine failed", func(f *fakeEngine) { f.fail = errors.New("device lost") }},
		{"channel closed early", func(f *fakeEngine) { f.cutOff = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			tc.engine(f)
			ts := newServer(t, f, Options{})
			r := ts.post(t, "/v1/chat/completions", `{`+hello+`,"stream":true}`)
			all := frames(t, r.body)
			last := all[len(all)-1]
			if r.status != 200 || !strings.HasPrefix(last, `{"error":{`) {
				t.Fatalf("%d, last frame %q", r.status, last)
			}
			if e := parseError(t, []byte(last)); e.Code != "engine_error" || strings.Contains(e.Message, "device lost") {
				t.Errorf("%+v", e)
			}
			// The same failure without a stream is a plain 500.
			r = ts.post(t, "/v1/chat/completions", `{`+hello+`}`)
			if e := parseError(t, r.body); r.status != 500 || e.Code != "engine_error" {
				t.Errorf("%d %+v", r.status, e)
			}
		})
	}
}

func TestUnknownFieldsAreNamedInAHeader(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	r := ts.post(t, "/v1/chat/completions", `{`+hello+`,"max_token":3,"user":"u","metadata":{},"evil\r\nX: y":1}`)
	if got := r.header.Get("Moaserve-Ignored-Fields"); r.status != 200 || got != "max_token" {
		t.Errorf("%d, ignored fields %q", r.status, got)
	}
}

func TestMessagesAreNormalisedForTemplates(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"text parts are joined", `[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]`,
			`[{"role":"user","content":"a\nb"}]`},
		{"developer is system", `[{"role":"developer","content":"x"}]`, `[{"role":"system","content":"x"}]`},
		{"assistant without content", `[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},{"role":"tool","tool_call_id":"1","content":"r"}]`,
			`[{"role":"assistant","content":"","tool_calls":[{"id":"1"}]},{"role":"tool","content":"r","tool_call_id":"1"}]`},
		{"reasoning under either name", `[{"role":"assistant","content":"x","reasoning":"why"}]`,
			`[{"role":"assistant","content":"x","reasoning_content":"why"}]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, _ := Limits{}.withDefaults()
			r, e := decodeChat([]byte(`{"messages":`+tc.in+`}`), &l, fakeVocab)
			if e != nil {
				t.Fatal(e)
			}
			if got := string(r.prompt.Messages); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestToolsAreAcceptedWhereTheyChangeNothing(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	for _, extra := range []string{
		`"tools":[]`, `"tools":[],"tool_choice":"auto"`, `"tool_choice":"none"`,
		`"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none"`,
		`"response_format":{"type":"text"}`, `"modalities":["text"]`, `"continue_final_message":false`,
	} {
		if r := ts.post(t, "/v1/chat/completions", `{`+hello+`,`+extra+`}`); r.status != 200 {
			t.Errorf("%s: %d %s", extra, r.status, r.body)
		}
	}
}
