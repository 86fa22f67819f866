package gateway

import (
	"fmt"
	"time"
)

// Limits bound what a client can ask for. A zero field takes its default; there
// is no way to say "unlimited", because each missing bound is somebody's outage.
type Limits struct {
	Connections    int // open connections; default 4096
	HeaderBytes    int // request line and headers; default 16 KiB
	BodyBytes      int // one request body; default 64 MiB
	BodyMemory     int // request bodies being received, all together; default 1 GiB
	JSONDepth      int // nesting of a body; default 64
	Messages       int // messages of a conversation; default 4096
	ContentParts   int // content parts of a message; default 1024
	Prompts        int // prompts of a completion request; default 64
	Choices        int // n times prompts; default 128, OpenAI's bound of n
	RequestTokens  int // choices times (prompt + max_tokens); default 4 Mi
	StopStrings    int // stop strings; default 16
	StopBytes      int // bytes of a stop string; default 256
	StopTokens     int // stop_token_ids; default 256
	LogitBias      int // entries of logit_bias; default 1024
	TopLogprobs    int // top_logprobs; default 20
	Tools          int // tools; default 128
	KwargsBytes    int // chat_template_kwargs; default 64 KiB
	QueuedRequests int // sequences that wait for admission; default 256
	QueuedTokens   int // their prompt tokens; default 4 Mi
	TenantRequests int // requests in flight of one API key's tenant, tokenizing ones too; default 256
}

// Timeouts bound how long a client can hold something. A zero field takes its
// default.
type Timeouts struct {
	Header time.Duration // first byte and headers of a request; default 10 s
	Body   time.Duration // its body; default 60 s
	Idle   time.Duration // a kept-alive connection between requests; default 75 s
	Flush  time.Duration // one write to a client that does not read; default 10 s
	// Ping is the longest silence of a stream: then a comment is sent, after the
	// headers if they have not left yet. Default 15 s: proxies give up after 60 s
	// (nginx, AWS load balancers), the strictest known after 30 s.
	Ping time.Duration
}

// withDefaults fills in the zero fields.
func (l Limits) withDefaults() (Limits, error) {
	for _, f := range []struct {
		name  string
		field *int
		value int
	}{
		{"Connections", &l.Connections, 4096},
		{"HeaderBytes", &l.HeaderBytes, 16 << 10},
		{"BodyBytes", &l.BodyBytes, 64 << 20},
		{"BodyMemory", &l.BodyMemory, 1 << 30},
		{"JSONDepth", &l.JSONDepth, 64},
		{"Messages", &l.Messages, 4096},
		{"ContentParts", &l.ContentParts, 1024},
		{"Prompts", &l.Prompts, 64},
		{"Choices", &l.Choices, 128},
		{"RequestTokens", &l.RequestTokens, 4 << 20},
		{"StopStrings", &l.StopStrings, 16},
		{"StopBytes", &l.StopBytes, 256},
		{"StopTokens", &l.StopTokens, 256},
		{"LogitBias", &l.LogitBias, 1024},
		{"TopLogprobs", &l.TopLogprobs, 20},
		{"Tools", &l.Tools, 128},
		{"KwargsBytes", &l.KwargsBytes, 64 << 10},
		{"QueuedRequests", &l.QueuedRequests, 256},
		{"QueuedTokens", &l.QueuedTokens, 4 << 20},
		{"TenantRequests", &l.TenantRequests, 256},
	} {
		if *f.field < 0 {
			return l, fmt.Errorf("gateway: Limits.%s is negative: %d", f.name, *f.field)
		}
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.BodyMemory < l.BodyBytes {
		return l, fmt.Errorf("gateway: Limits.BodyMemory (%d) is below Limits.BodyBytes (%d)", l.BodyMemory, l.BodyBytes)
	}
	return l, nil
}

// withDefaults fills in the zero fields.
func (t Timeouts) withDefaults() (Timeouts, error) {
	for _, f := range []struct {
		name  string
		field *time.Duration
		value time.Duration
	}{
		{"Header", &t.Header, 10 * time.Second},
		{"Body", &t.Body, 60 * time.Second},
		{"Idle", &t.Idle, 75 * time.Second},
		{"Flush", &t.Flush, 10 * time.Second},
		{"Ping", &t.Ping, 15 * time.Second},
	} {
		if *f.field < 0 {
			return t, fmt.Errorf("gateway: Timeouts.%s is negative: %v", f.name, *f.field)
		}
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return t, nil
}
