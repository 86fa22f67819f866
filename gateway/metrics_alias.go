package gateway

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// vllmAliases maps our names to vLLM's (its EXPECTED_METRICS_V1). Routers,
// dashboards and autoscalers read those.
var vllmAliases = map[string]string{
	"moaserve_num_requests_running":                  "vllm:num_requests_running",
	"moaserve_num_requests_waiting":                  "vllm:num_requests_waiting",
	"moaserve_kv_cache_usage_ratio":                  "vllm:kv_cache_usage_perc",
	"moaserve_num_preemptions_total":                 "vllm:num_preemptions_total",
	"moaserve_cache_config_info":                     "vllm:cache_config_info",
	"moaserve_prompt_tokens_total":                   "vllm:prompt_tokens_total",
	"moaserve_prompt_tokens_cached_total":            "vllm:prompt_tokens_cached_total",
	"moaserve_generation_tokens_total":               "vllm:generation_tokens_total",
	"moaserve_prefix_cache_queries_total":            "vllm:prefix_cache_queries_total",
	"moaserve_prefix_cache_hits_total":               "vllm:prefix_cache_hits_total",
	"moaserve_requests_finished_total":               "vllm:request_success_total",
	"moaserve_admission_rejections_total":            "vllm:admission_rejections_total",
	"moaserve_time_to_first_token_seconds":           "vllm:time_to_first_token_seconds",
	"moaserve_inter_token_latency_seconds":           "vllm:inter_token_latency_seconds",
	"moaserve_request_time_per_output_token_seconds": "vllm:request_time_per_output_token_seconds",
	"moaserve_e2e_request_latency_seconds":           "vllm:e2e_request_latency_seconds",
	"moaserve_request_queue_time_seconds":            "vllm:request_queue_time_seconds",
	"moaserve_request_prefill_time_seconds":          "vllm:request_prefill_time_seconds",
	"moaserve_request_decode_time_seconds":           "vllm:request_decode_time_seconds",
	"moaserve_request_inference_time_seconds":        "vllm:request_inference_time_seconds",
	"moaserve_request_prompt_tokens":                 "vllm:request_prompt_tokens",
	"moaserve_request_generation_tokens":             "vllm:request_generation_tokens",
	"moaserve_request_params_n":                      "vllm:request_params_n",
	"moaserve_request_params_max_tokens":             "vllm:request_params_max_tokens",
}

// aliasGatherer adds the aliases to what it gathers. Renaming the gathered
// values, rather than counting twice, is what keeps the two always equal.
type aliasGatherer struct{ prometheus.Gatherer }

var _ prometheus.Gatherer = aliasGatherer{}

// Gather returns the families under both names, sorted.
func (g aliasGatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.Gatherer.Gather()
	for _, f := range families[:len(families):len(families)] {
		alias, ok := vllmAliases[f.GetName()]
		if !ok {
			continue
		}
		renamed := &dto.MetricFamily{Name: &alias, Help: f.Help, Type: f.Type, Unit: f.Unit}
		for _, m := range f.GetMetric() {
			renamed.Metric = append(renamed.Metric, withEngineLabel(m))
		}
		families = append(families, renamed)
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return families, err
}

// withEngineLabel returns m with vLLM's label for the engine's number, of which
// a server has one.
func withEngineLabel(m *dto.Metric) *dto.Metric {
	name, value := "engine", "0"
	labels := append(slices.Clone(m.GetLabel()), &dto.LabelPair{Name: &name, Value: &value})
	slices.SortFunc(labels, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return &dto.Metric{Label: labels, Gauge: m.Gauge, Counter: m.Counter, Histogram: m.Histogram, Summary: m.Summary, Untyped: m.Untyped}
}
