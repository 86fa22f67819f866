package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/moaserve/moaserve/runtime"
)

// Buckets. Latencies span a decode step of a small model (1 ms) to the prefill
// of a long document on a CPU (minutes); tokens span a word to a million.
var (
	bucketsStep   = []float64{.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .5, 1, 2.5, 5, 10}
	bucketsTTFT   = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600, 1200}
	bucketsWhole  = []float64{.1, .25, .5, 1, 2.5, 5, 10, 20, 40, 60, 120, 240, 480, 960, 1920, 3840}
	bucketsTokens = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000}
	bucketsCount  = []float64{1, 2, 4, 8, 16, 32, 64, 128}
)

const labelModel = "model_name"

// metrics is everything under /metrics. A request here is one sequence: a call
// with n = 4 counts four times. What vLLM has, too, is repeated under its name: see
// vllmAliases.
type metrics struct {
	registry *prometheus.Registry

	http     *prometheus.CounterVec
	rejected *prometheus.CounterVec

	promptTokens     *prometheus.CounterVec
	cachedTokens     *prometheus.CounterVec
	generationTokens *prometheus.CounterVec
	prefixQueries    *prometheus.CounterVec
	prefixHits       *prometheus.CounterVec
	finished         *prometheus.CounterVec

	ttft, itl, tpot, e2e              *prometheus.HistogramVec
	queue, prefill, decode, inference *prometheus.HistogramVec
	promptSize, generationSize        *prometheus.HistogramVec
	paramN, paramMaxTokens            *prometheus.HistogramVec
}

func newMetrics(engine Engine) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "moaserve_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "moaserve_" + name, Help: help, Buckets: buckets}, []string{labelModel})
		m.registry.MustRegister(h)
		return h
	}
	m.http = counter("http_requests_total", "HTTP requests by route, method and status; a stream counts when its headers are decided.", "route", "method", "status")
	m.rejected = counter("admission_rejections_total", "Requests refused before they reached the engine's batch, by error code.", "reason")
	m.promptTokens = counter("prompt_tokens_total", "Prompt tokens of admitted requests.", labelModel)
	m.cachedTokens = counter("prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache.", labelModel)
	m.generationTokens = counter("generation_tokens_total", "Generated tokens.", labelModel)
	m.prefixQueries = counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", labelModel)
	m.prefixHits = counter("prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", labelModel)
	m.finished = counter("requests_finished_total", "Finished requests by reason: stop, length, abort or error.", labelModel, "finished_reason")
	m.ttft = histogram("time_to_first_token_seconds", "From the request's arrival to its first token.", bucketsTTFT)
	m.itl = histogram("inter_token_latency_seconds", "Between one token and the next.", bucketsStep)
	m.tpot = histogram("request_time_per_output_token_seconds", "Mean time a token after the first, by request.", bucketsStep)
	m.e2e = histogram("e2e_request_latency_seconds", "From the request's arrival to its end.", bucketsWhole)
	m.queue = histogram("request_queue_time_seconds", "In the queue, by request.", bucketsWhole)
	m.prefill = histogram("request_prefill_time_seconds", "From admission to the first token, by request.", bucketsWhole)
	m.decode = histogram("request_decode_time_seconds", "From the first token to the last, by request.", bucketsWhole)
	m.inference = histogram("request_inference_time_seconds", "From admission to the last token, by request.", bucketsWhole)
	m.promptSize = histogram("request_prompt_tokens", "Prompt tokens by request.", bucketsTokens)
	m.generationSize = histogram("request_generation_tokens", "Generated tokens by request.", bucketsTokens)
	m.paramN = histogram("request_params_n", "The parameter n by HTTP request.", bucketsCount)
	m.paramMaxTokens = histogram("request_params_max_tokens", "The parameter max_tokens by HTTP request that gives it.", bucketsTokens)
	m.registry.MustRegister(
		&engineCollector{engine: engine},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// countHTTP counts a response.
func (m *metrics) countHTTP(route, method string, status int) {
	m.http.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
}

// reject counts a refusal if e is one.
func (m *metrics) reject(e *apiError) {
	switch e.code {
	case kindQueueFull.code, kindRateLimit.code, kindOverloaded.code, kindShutdown.code:
		m.rejected.WithLabelValues(e.code).Inc()
	}
}

// modelMetrics are the metrics of one model, looked up once a request.
type modelMetrics struct {
	m     *metrics
	model string
	itl   prometheus.Observer
	gen   prometheus.Counter
}

func (m *metrics) forModel(model string) modelMetrics {
	return modelMetrics{m: m, model: model, itl: m.itl.WithLabelValues(model), gen: m.generationTokens.WithLabelValues(model)}
}

// reasonAbort is why a sequence ended whose client has left, or that somebody else ended.
const reasonAbort = "abort"

// endedBy names why a sequence ended, for metrics and the log.
func endedBy(r runtime.Reason) string {
	if r == runtime.ReasonCancelled {
		return reasonAbort
	}
	return string(r)
}

// meter follows one sequence. Its methods are called by one goroutine at a time.
type meter struct {
	modelMetrics
	prompt      int
	start, last time.Time
	first       time.Time // when the first token came
	tokens      int
	done        bool
}

// event takes note of an event received at now.
func (m *meter) event(ev *runtime.Event, now time.Time) {
	switch ev.Kind {
	case runtime.EventAdmitted:
		m.m.promptTokens.WithLabelValues(m.model).Add(float64(m.prompt))
		m.m.prefixQueries.WithLabelValues(m.model).Add(float64(m.prompt))
		m.m.cachedTokens.WithLabelValues(m.model).Add(float64(ev.CachedTokens))
		m.m.prefixHits.WithLabelValues(m.model).Add(float64(ev.CachedTokens))
	case runtime.EventText:
		m.text(len(ev.Tokens), now)
	case runtime.EventFinished:
		m.finish(ev, now)
	}
}

// text notes n tokens that came together. They share the time since the last
// ones evenly, so that there is one latency for each token but the first.
func (m *meter) text(n int, now time.Time) {
	if n <= 0 {
		return
	}
	m.gen.Add(float64(n))
	share := now.Sub(m.last).Seconds() / float64(n)
	later := n
	if m.tokens == 0 {
		m.first = now
		m.m.ttft.WithLabelValues(m.model).Observe(now.Sub(m.start).Seconds())
		later, share = n-1, 0
	}
	for range later {
		m.itl.Observe(share)
	}
	m.tokens += n
	m.last = now
}

// finish notes the end of the sequence.
func (m *meter) finish(ev *runtime.Event, now time.Time) {
	if m.done {
		return
	}
	reason := endedBy(ev.Reason)
	// A token that ends the text is generated, too, and comes with the end.
	m.text(ev.Usage.CompletionTokens-m.tokens, now)
	m.end(reason, now)
	if ev.Reason != runtime.ReasonStop && ev.Reason != runtime.ReasonLength {
		return
	}
	t := &ev.Timings
	m.m.queue.WithLabelValues(m.model).Observe(t.Queue.Seconds())
	m.m.prefill.WithLabelValues(m.model).Observe(t.Prefill.Seconds())
	m.m.decode.WithLabelValues(m.model).Observe(t.Decode.Seconds())
	m.m.inference.WithLabelValues(m.model).Observe((t.Prefill + t.Decode).Seconds())
	if m.tokens > 1 {
		m.m.tpot.WithLabelValues(m.model).Observe(t.Decode.Seconds() / float64(m.tokens-1))
	}
}

// end counts the sequence under reason, once.
func (m *meter) end(reason string, now time.Time) {
	if m.done {
		return
	}
	m.done = true
	m.m.finished.WithLabelValues(m.model, reason).Inc()
	m.m.e2e.WithLabelValues(m.model).Observe(now.Sub(m.start).Seconds())
	m.m.promptSize.WithLabelValues(m.model).Observe(float64(m.prompt))
	m.m.generationSize.WithLabelValues(m.model).Observe(float64(m.tokens))
}

// engineCollector reads the engine's state once for each scrape.
type engineCollector struct{ engine Engine }

var _ prometheus.Collector = (*engineCollector)(nil)

var (
	descRunning     = prometheus.NewDesc("moaserve_num_requests_running", "Requests in the engine's batch.", []string{labelModel}, nil)
	descWaiting     = prometheus.NewDesc("moaserve_num_requests_waiting", "Requests in the engine's queue.", []string{labelModel}, nil)
	descKVUsage     = prometheus.NewDesc("moaserve_kv_cache_usage_ratio", "Share of the KV pages in use, 0 to 1.", []string{labelModel}, nil)
	descPages       = prometheus.NewDesc("moaserve_kv_pages", "KV pages by state: used by running sequences, cached by prefixes alone, or free.", []string{labelModel, "state"}, nil)
	descPrefixes    = prometheus.NewDesc("moaserve_kv_prefixes", "Prefixes that are kept.", []string{labelModel}, nil)
	descPinned      = prometheus.NewDesc("moaserve_kv_prefixes_pinned", "Kept prefixes that are a session's latest.", []string{labelModel}, nil)
	descSessions    = prometheus.NewDesc("moaserve_sessions", "Sessions that are remembered.", []string{labelModel}, nil)
	descEvictions   = prometheus.NewDesc("moaserve_kv_prefix_evictions_total", "Prefixes given up because their pages were needed.", []string{labelModel}, nil)
	descDiskBytes   = prometheus.NewDesc("moaserve_kv_disk_bytes", "Size of the prefixes kept in files.", []string{labelModel}, nil)
	descDisk        = prometheus.NewDesc("moaserve_kv_disk_prefixes_total", "What became of prefixes kept in files: written, loaded, evicted, dropped, failed or damaged.", []string{labelModel, "event"}, nil)
	descPreemptions = prometheus.NewDesc("moaserve_num_preemptions_total", "Requests sent back to the queue.", []string{labelModel}, nil)
	descSteps       = prometheus.NewDesc("moaserve_device_steps_total", "Steps of the device by outcome: done or failed.", []string{labelModel, "outcome"}, nil)
	descBusy        = prometheus.NewDesc("moaserve_device_busy_seconds_total", "Time that the device worked at steps; 0 where it does not tell.", []string{labelModel}, nil)
	descCacheConfig = prometheus.NewDesc("moaserve_cache_config_info", "The KV cache: positions a page, pages.", []string{labelModel, "block_size", "num_gpu_blocks"}, nil)
)

// Describe sends the descriptions.
func (c *engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRunning, descWaiting, descKVUsage, descPages, descPrefixes, descPinned, descSessions, descEvictions, descDiskBytes, descDisk, descPreemptions, descSteps, descBusy, descCacheConfig} {
		ch <- d
	}
}

// Collect sends the values.
func (c *engineCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.engine.Stats()
	model := c.engine.Models()[0].ID
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{model}, labels...)...)
	}
	gauge(descRunning, float64(s.Running))
	gauge(descWaiting, float64(s.Waiting))
	gauge(descKVUsage, s.KVUsage)
	gauge(descCacheConfig, 1, strconv.Itoa(s.PageTokens), strconv.Itoa(s.Pages))
	gauge(descPages, float64(s.UsedPages), "used")
	gauge(descPages, float64(s.CachedPages), "cached")
	gauge(descPages, float64(s.Pages-s.UsedPages-s.CachedPages), "free")
	gauge(descPrefixes, float64(s.Prefixes))
	gauge(descPinned, float64(s.PinnedPrefixes))
	gauge(descSessions, float64(s.Sessions))
	gauge(descDiskBytes, float64(s.Disk.Bytes))
	for event, n := range map[string]uint64{
		"written": s.Disk.Written, "loaded": s.Disk.Loaded, "evicted": s.Disk.Evicted,
		"dropped": s.Disk.Dropped, "failed": s.Disk.Failed, "damaged": s.Disk.Damaged,
	} {
		ch <- prometheus.MustNewConstMetric(descDisk, prometheus.CounterValue, float64(n), model, event)
	}
	ch <- prometheus.MustNewConstMetric(descEvictions, prometheus.CounterValue, float64(s.PrefixEvictions), model)
	ch <- prometheus.MustNewConstMetric(descPreemptions, prometheus.CounterValue, float64(s.Preemptions), model)
	ch <- prometheus.MustNewConstMetric(descSteps, prometheus.CounterValue, float64(s.Steps-s.FailedSteps), model, "done")
	ch <- prometheus.MustNewConstMetric(descSteps, prometheus.CounterValue, float64(s.FailedSteps), model, "failed")
	ch <- prometheus.MustNewConstMetric(descBusy, prometheus.CounterValue, s.Busy.Seconds(), model)
}
