package gateway

import (
	"encoding/json"
	"testing"
)

// checkRefusal checks what every refusal owes its client.
func checkRefusal(t *testing.T, e *apiError) {
	t.Helper()
	if e.status < 400 || e.status >= 500 {
		t.Errorf("bad input became a %d", e.status)
	}
	if !json.Valid(e.appendJSON(nil)) {
		t.Errorf("invalid error body: %q", e.appendJSON(nil))
	}
}

func FuzzDecodeChat(f *testing.F) {
	f.Add([]byte(`{` + hello + `,"n":2,"stop":["a"],"logit_bias":{"1":2},"seed":1,"stream":true,"stream_options":{"include_usage":true}}`))
	f.Add([]byte(`{"messages":[{"role":"tool","tool_call_id":"x","content":[{"type":"text","text":"\ud800"}]}],"tools":[],"tool_choice":"none"}`))
	f.Add([]byte(`{"messages":[{"role":"assistant","tool_calls":[{}]}],"chat_template_kwargs":{"a":[1]}}`))
	l, err := Limits{}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, e := decodeChat(body, &l, fakeVocab)
		if e != nil {
			checkRefusal(t, e)
			return
		}
		// What is accepted is within bounds, and fit for a template.
		var messages []message
		if err := json.Unmarshal(r.prompt.Messages, &messages); err != nil || len(messages) == 0 || len(messages) > l.Messages {
			t.Errorf("%d messages, %v: %s", len(messages), err, r.prompt.Messages)
		}
		if r.prompt.Kwargs != nil && !json.Valid(r.prompt.Kwargs) {
			t.Errorf("kwargs %s", r.prompt.Kwargs)
		}
		checkParams(t, &r.params, &l)
	})
}

func FuzzDecodeCompletion(f *testing.F) {
	f.Add([]byte(`{"prompt":["a","b"],"echo":true,"n":3}`))
	f.Add([]byte(`{"prompt":[[1,2],[3]],"logprobs":2,"best_of":1}`))
	f.Add([]byte(`{"prompt":[1,2.0,3e0],"max_tokens":1e2}`))
	l, err := Limits{}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, e := decodeCompletion(body, &l, fakeVocab)
		if e != nil {
			checkRefusal(t, e)
			return
		}
		if len(r.prompts) == 0 || len(r.prompts) > l.Prompts {
			t.Errorf("%d prompts", len(r.prompts))
		}
		for _, p := range r.prompts {
			for _, id := range p.ids {
				if id < 0 || id >= fakeVocab {
					t.Errorf("token %d", id)
				}
			}
		}
		checkParams(t, &r.params, &l)
	})
}

func checkParams(t *testing.T, p *params, l *Limits) {
	t.Helper()
	s := &p.sampling
	for _, ok := range []bool{
		p.n >= 1 && p.n <= 128, p.maxTokens >= 0, len(p.stop) <= l.StopStrings, len(p.stopTokens) <= l.StopTokens,
		len(s.LogitBias) <= l.LogitBias, s.TopLogprobs <= l.TopLogprobs, s.Temperature >= 0 && s.Temperature <= 2,
		s.TopP >= 0 && s.TopP <= 1, s.MinP >= 0 && s.MinP <= 1, s.TopK >= 0, s.RepetitionPenalty > 0, s.MinTokens >= 0,
		p.stream || (!p.includeUsage && !p.progress),
	} {
		if !ok {
			t.Errorf("out of bounds: %+v", *p)
		}
	}
}
