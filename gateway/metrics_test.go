package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/moaserve/moaserve/runtime"
)

// scrape returns the families by name.
func scrape(t *testing.T, ts *testServer) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := aliasGatherer{ts.metrics.registry}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		out[f.GetName()] = f
	}
	return out
}

// sum adds up a family: counts of histograms, values of the rest.
func sum(f *dto.MetricFamily) float64 {
	total := 0.0
	for _, m := range f.GetMetric() {
		switch {
		case m.Histogram != nil:
			total += float64(m.Histogram.GetSampleCount())
		case m.Counter != nil:
			total += m.Counter.GetValue()
		case m.Gauge != nil:
			total += m.Gauge.GetValue()
		}
	}
	return total
}

func TestMetricsKeepTheirInvariants(t *testing.T) {
	f := newFake()
	f.cached = 2
	ts := newServer(t, f, Options{})
	requests, tokens := 0, 0
	for _, tc := range []struct {
		body    string
		n, each int
	}{
		{`{` + hello + `}`, 1, 5},
		{`{` + hello + `,"stream":true,"max_tokens":1}`, 1, 1},
		{`{` + hello + `,"model":"tiny:dense","stream":true,"n":3,"max_tokens":4}`, 3, 4},
		{`{` + hello + `,"max_tokens":2,"n":2}`, 2, 2},
	} {
		if r := ts.post(t, "/v1/chat/completions", tc.body); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		requests += tc.n
		tokens += tc.n * tc.each
	}
	m := scrape(t, ts)
	prompt := float64(requests * helloTokens)
	for name, want := range map[string]float64{
		"moaserve_time_to_first_token_seconds":           float64(requests),
		"moaserve_inter_token_latency_seconds":           float64(tokens - requests),
		"moaserve_e2e_request_latency_seconds":           float64(requests),
		"moaserve_request_queue_time_seconds":            float64(requests),
		"moaserve_request_prefill_time_seconds":          float64(requests),
		"moaserve_request_decode_time_seconds":           float64(requests),
		"moaserve_request_inference_time_seconds":        float64(requests),
		"moaserve_request_time_per_output_token_seconds": float64(requests - 1), // one had a single token
		"moaserve_requests_finished_total":               float64(requests),
		"moaserve_request_prompt_tokens":                 float64(requests),
		"moaserve_request_generation_tokens":             float64(requests),
		"moaserve_request_params_n":                      4,
		"moaserve_request_params_max_tokens":             3,
		"moaserve_generation_tokens_total":               float64(tokens),
		"moaserve_prompt_tokens_total":                   prompt,
		"moaserve_prefix_cache_queries_total":            prompt,
		"moaserve_prefix_cache_hits_total":               float64(2 * requests),
		"moaserve_prompt_tokens_cached_total":            float64(2 * requests),
		"moaserve_kv_cache_usage_ratio":                  .25,
		"moaserve_num_requests_running":                  0,
		"moaserve_num_requests_waiting":                  3,
		"moaserve_num_preemptions_total":                 7,
		"moaserve_device_steps_total":                    90, // 88 done and 2 failed
		"moaserve_device_busy_seconds_total":             1.5,
		"moaserve_cache_config_info":                     1,
		"moaserve_http_requests_total":                   4,
	} {
		if got := sum(m[name]); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	// The tokens of the histogram are those of the counter.
	var generated float64
	for _, metric := range m["moaserve_request_generation_tokens"].GetMetric() {
		generated += metric.GetHistogram().GetSampleSum()
	}
	if generated != float64(tokens) {
		t.Errorf("request_generation_tokens sums to %v, want %d", generated, tokens)
	}
}

func TestVLLMAliasesHaveTheSameValues(t *testing.T) {
	f := newFake()
	ts := newServer(t, f, Options{})
	ts.post(t, "/v1/chat/completions", `{`+hello+`,"max_tokens":3}`)
	f.refuse, f.refuseAfter = runtime.ErrQueueFull, 1
	ts.post(t, "/v1/chat/completions", `{`+hello+`}`)
	m := scrape(t, ts)
	for own, alias := range vllmAliases {
		a, b := m[own], m[alias]
		if a == nil || b == nil {
			t.Errorf("%s (%v) or %s (%v) is missing", own, a != nil, alias, b != nil)
			continue
		}
		if sum(a) != sum(b) || len(a.GetMetric()) != len(b.GetMetric()) {
			t.Errorf("%s is %v, %s is %v", own, sum(a), alias, sum(b))
		}
		for _, metric := range b.GetMetric() {
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["engine"] != "0" || (labels["model_name"] != "tiny" && alias != "vllm:admission_rejections_total") {
				t.Errorf("%s has labels %v", alias, labels)
			}
		}
	}
}

func TestAbortsAndFailuresAreCountedAsSuch(t *testing.T) {
	f := newFake()
	f.first = make(chan struct{})
	ts := newServer(t, f, Options{})
	for _, stream := range []bool{true, false} {
		c := ts.dial(t, "/v1/chat/completions", fmt.Sprintf(`{%s,"n":2,"stream":%v}`, hello, stream))
		eventually(t, "it runs", func() bool { return f.running.Load() == 2 })
		_ = c.Close()
		eventually(t, "it is over", func() bool { return f.running.Load() == 0 })
	}
	eventually(t, "four aborts are counted", func() bool { return reasons(t, ts)["abort"] == 4 })
	close(f.first)
	f.fail = errors.New("x")
	ts.post(t, "/v1/chat/completions", `{`+hello+`}`)
	if got := reasons(t, ts); got["error"] != 1 {
		t.Errorf("%v", got)
	}
	if m := scrape(t, ts); sum(m["vllm:num_requests_running"]) != 0 {
		t.Error("requests are still running")
	}
}

func reasons(t *testing.T, ts *testServer) map[string]float64 {
	out := map[string]float64{}
	for _, m := range scrape(t, ts)["moaserve_requests_finished_total"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "finished_reason" {
				out[l.GetValue()] += m.GetCounter().GetValue()
			}
		}
	}
	return out
}

func TestMetricsEndpointIsPrometheusText(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	ts.post(t, "/v1/chat/completions", `{`+hello+`,"max_tokens":2}`)
	ts.do(t, "GET", "/"+strings.Repeat("a", 100), "") // labels do not follow the clients
	r := ts.do(t, "GET", "/metrics", "")
	for _, line := range []string{
		`vllm:num_requests_waiting{engine="0",model_name="tiny"} 3`,
		`vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25`,
		`vllm:cache_config_info{block_size="64",engine="0",model_name="tiny",num_gpu_blocks="1000"} 1`,
		`vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 1`,
		`vllm:generation_tokens_total{engine="0",model_name="tiny"} 2`,
		`vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 1`,
		`vllm:inter_token_latency_seconds_count{engine="0",model_name="tiny"} 1`,
		`moaserve_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1`,
		`moaserve_http_requests_total{method="GET",route="other",status="404"} 1`,
	} {
		if !bytes.Contains(r.body, []byte(line+"\n")) {
			t.Errorf("missing %s", line)
		}
	}
	// Families come once, in order: the text format demands it.
	types := regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(string(r.body), -1)
	var names []string
	for _, m := range types {
		names = append(names, m[1])
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Error("families are repeated or out of order")
	}
}

func TestInterTokenLatenciesOfABatchShareItsTime(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	meter := meter{modelMetrics: ts.metrics.forModel("tiny")}
	for _, n := range []int{3, 0, 2, 1} {
		meter.event(&runtime.Event{Kind: runtime.EventText, Tokens: make([]runtime.Token, n)}, meter.last)
	}
	m := scrape(t, ts)
	if ttft, itl := sum(m["moaserve_time_to_first_token_seconds"]), sum(m["moaserve_inter_token_latency_seconds"]); ttft != 1 || itl != 5 {
		t.Errorf("%v first tokens, %v latencies for 6 tokens", ttft, itl)
	}
}

func TestHealthFollowsTheEngine(t *testing.T) {
	f := newFake()
	ts := newServer(t, f, Options{Version: "1.2.3"})
	want := func(path string, status int, contains string) {
		t.Helper()
		r := ts.do(t, "GET", path, "")
		if r.status != status || !bytes.Contains(r.body, []byte(contains)) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
		if r.status >= 400 {
			parseError(t, r.body)
		}
		if head := ts.do(t, "HEAD", path, ""); head.status != status || len(head.body) != 0 {
			t.Errorf("HEAD %s: %d %q", path, head.status, head.body)
		}
	}
	want("/health", 200, "ok")
	want("/ready", 200, "ready")
	want("/version", 200, `{"version":"1.2.3"}`)
	err := errors.New("device 0 fell off the bus")
	f.sick.Store(&err)
	want("/health", 503, "unhealthy")
	want("/ready", 503, "unhealthy")
	if r := ts.do(t, "GET", "/health", ""); bytes.Contains(r.body, []byte("bus")) {
		t.Errorf("internals on a public endpoint: %s", r.body)
	}
	f.sick.Store(nil)
	want("/health", 200, "ok")
	if err := ts.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestTokenEndpoints(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	for _, tc := range []struct{ path, body, want string }{
		{"/tokenize", `{"prompt":"ab"}`, `{"count":3,"max_model_len":4096,"tokens":[256,97,98]}`},
		{"/tokenize", `{"prompt":"ab","add_special_tokens":false,"return_token_strs":true}`, `{"count":2,"max_model_len":4096,"tokens":[97,98],"token_strs":["a","b"]}`},
		{"/tokenize", `{"content":"é","with_pieces":true}`, `{"count":2,"max_model_len":4096,"tokens":[195,169],"token_strs":["\\xc3","\\xa9"]}`},
		{"/tokenize", `{"messages":[{"role":"user","content":"x"}],"add_generation_prompt":false}`, `{"count":8,"max_model_len":4096,"tokens":[256,117,115,101,114,58,120,10]}`},
		{"/detokenize", `{"tokens":[97,34,98]}`, `{"prompt":"a\"b","content":"a\"b"}`},
		{"/detokenize", `{"tokens":[]}`, `{"prompt":"","content":""}`},
		{"/v1/chat/completions/input_tokens", `{` + hello + `,"model":"tiny:dense","temperature":9}`,
			`{"object":"chat.completion.input_tokens","model":"tiny:dense","input_tokens":22,"max_model_len":4096}`},
	} {
		if r := ts.post(t, tc.path, tc.body); r.status != 200 || string(r.body) != tc.want {
			t.Errorf("%s %s: %d %s, want %s", tc.path, tc.body, r.status, r.body, tc.want)
		}
	}
}

func TestModelObjectsHaveTheOfficialShape(t *testing.T) {
	ts := newServer(t, newFake(), Options{})
	want := `{"id":"tiny:dense","object":"model","created":1700000000,"owned_by":"moaserve","max_model_len":4096,"plan":"dense"}`
	for _, path := range []string{"/v1/models/tiny:dense", "/v1/models/tiny%3Adense"} {
		if r := ts.do(t, "GET", path, ""); string(r.body) != want {
			t.Errorf("%s: %s", path, r.body)
		}
	}
	if r := ts.do(t, "GET", "/v1/models", ""); !strings.HasPrefix(string(r.body), `{"object":"list","data":[{"id":"tiny"`) || !strings.Contains(string(r.body), want) {
		t.Errorf("%s", r.body)
	}
}

func TestAliasesAreOneToOne(t *testing.T) {
	if n := len(slices.Compact(slices.Sorted(maps.Values(vllmAliases)))); n != len(vllmAliases) {
		t.Errorf("%d names for %d aliases", n, len(vllmAliases))
	}
}

func TestTokenThatEndsTheTextCounts(t *testing.T) {
	m := newMetrics(newFake())
	x := meter{modelMetrics: m.forModel("m"), start: time.Now(), last: time.Now()}
	// Two tokens of text and one that ends it, a second apart.
	for _, ev := range []runtime.Event{
		{Kind: runtime.EventText, Text: "a", Tokens: someToken}, {Kind: runtime.EventText, Text: "b", Tokens: someToken}, {Kind: runtime.EventText},
		{Kind: runtime.EventFinished, Reason: runtime.ReasonStop, Usage: runtime.Usage{CompletionTokens: 3}, Timings: runtime.Timings{Decode: 2 * time.Second}},
	} {
		x.event(&ev, time.Now())
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		var got, want float64
		switch f.GetName() {
		case "moaserve_request_time_per_output_token_seconds":
			got, want = f.Metric[0].Histogram.GetSampleSum(), 1
		case "moaserve_request_generation_tokens":
			got, want = f.Metric[0].Histogram.GetSampleSum(), 3
		case "moaserve_generation_tokens_total":
			got, want = f.Metric[0].Counter.GetValue(), 3
		default:
			continue
		}
		seen++
		if got != want {
			t.Errorf("%s is %v, want %v", f.GetName(), got, want)
		}
	}
	if seen != 3 {
		t.Errorf("%d of three metrics are there", seen)
	}
}
