package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/moaserve/moaserve/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, leakOptions...) }

// leakOptions names the goroutines of fasthttp that outlive a server.
var leakOptions = []goleak.Option{
	// Its clock runs as long as the process.
	goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
	// Its worker pool looks for the end of Serve only every ten seconds.
	goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
}

// The fake model's vocabulary: a token a byte, and two special ones.
const (
	fakeBOS     = 256
	fakeEOS     = 257
	fakeVocab   = 258
	fakeContext = 4096
)

// fakeEngine is an Engine without a model. Its fields are set before the server
// starts.
type fakeEngine struct {
	tokens      int                // tokens of an answer without max_tokens; 0 means 5
	text        func(i int) string // of token i; nil means "w0 ", "w1 ", ...
	cached      int                // of each prompt
	admit       chan struct{}      // admission waits for it, unless nil
	first       chan struct{}      // the first token waits for it, unless nil
	render      chan struct{}      // ChatPrompt waits for it, unless nil
	gap         time.Duration      // between tokens
	refuse      error              // from Generate
	refuseAfter int                // that many requests are accepted first
	fail        error              // ends every request after its tokens
	cutOff      bool               // the channel is closed without a last event
	sick        atomic.Pointer[error]
	chat        error             // from ChatPrompt
	sessions    map[string]string // the session of each tenant

	started   atomic.Int64
	running   atomic.Int64
	rendering atomic.Int64
	ended     chan ending // of cancelled requests

	mu   sync.Mutex
	last []runtime.Request // the first few
}

// someToken is the token of those who do not look at it.
var someToken = []runtime.Token{{}}

// ending is how the engine saw a request's context end.
type ending struct {
	cause error
	at    time.Time
}

var _ Engine = (*fakeEngine)(nil)

func newFake() *fakeEngine { return &fakeEngine{ended: make(chan ending, 4096)} }

func (f *fakeEngine) Models() []ModelInfo {
	created := time.Unix(1700000000, 0)
	return []ModelInfo{
		{ID: "tiny", Created: created, Context: fakeContext},
		{ID: "tiny:dense", Plan: "dense", Created: created, Context: fakeContext},
		{ID: "org/tiny:moa-50", Plan: "moa-50", Created: created, Context: fakeContext},
	}
}

func (f *fakeEngine) Tokenize(text string, addSpecial, _ bool) []int32 {
	var ids []int32
	if addSpecial {
		ids = append(ids, fakeBOS)
	}
	for _, c := range []byte(text) {
		ids = append(ids, int32(c))
	}
	return ids
}

func (f *fakeEngine) Detokenize(ids []int32) string {
	var b []byte
	for _, id := range ids {
		b = append(b, f.TokenBytes(id)...)
	}
	return string(b)
}

func (f *fakeEngine) TokenBytes(id int32) []byte {
	if id < 256 {
		return []byte{byte(id)}
	}
	return nil
}

func (f *fakeEngine) Vocab() int { return fakeVocab }

func (f *fakeEngine) ChatPrompt(p ChatPrompt) ([]int32, error) {
	f.rendering.Add(1)
	defer f.rendering.Add(-1)
	if f.render != nil {
		<-f.render
	}
	if f.chat != nil {
		return nil, f.chat
	}
	var messages []message
	if err := json.Unmarshal(p.Messages, &messages); err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, m := range messages {
		b.WriteString(m.Role + ":" + m.Content + "\n")
	}
	if p.AddGenerationPrompt {
		b.WriteString("assistant:")
	}
	return f.Tokenize(b.String(), true, true), nil
}

func (f *fakeEngine) Healthy() error {
	if p := f.sick.Load(); p != nil {
		return *p
	}
	return nil
}

func (f *fakeEngine) Stats() Stats {
	return Stats{Running: int(f.running.Load()), Waiting: 3, KVUsage: .25, Preemptions: 7, Steps: 90, FailedSteps: 2, Busy: 1500 * time.Millisecond, PageTokens: 64, Pages: 1000, UsedPages: 250, CachedPages: 500, Prefixes: 9, PinnedPrefixes: 2, PrefixEvictions: 4, Sessions: 1, Disk: runtime.SpillStats{Files: 3, Bytes: 3 << 20, Written: 5, Loaded: 2, Dropped: 1, Failed: 1, Damaged: 7}}
}

func (f *fakeEngine) PlanPages(context.Context) ([]runtime.PlanPages, error) {
	return []runtime.PlanPages{{Plan: "moa-50", Sequences: 2, SequenceTokens: 4096, SequencePages: 700, Prefixes: 3, PrefixTokens: 1024, PrefixPages: 90}}, nil
}

func (f *fakeEngine) Sessions(tenant string) []runtime.SessionInfo {
	id, ok := f.sessions[tenant]
	if !ok {
		return nil
	}
	created := time.Unix(1700000000, 0)
	return []runtime.SessionInfo{{
		ID: id, Plan: "moa-50", Created: created, Used: created.Add(time.Minute), Requests: 2, Running: 1,
		Tokens: 448, Pages: 40, PromptTokens: 900, CachedTokens: 320,
	}}
}

func (f *fakeEngine) EndSession(tenant, id string) bool { return f.sessions[tenant] == id && id != "" }

func (f *fakeEngine) requests() []runtime.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]runtime.Request(nil), f.last...)
}

func (f *fakeEngine) Generate(ctx context.Context, r runtime.Request) (<-chan runtime.Event, error) {
	if f.refuse != nil && f.started.Load() >= int64(f.refuseAfter) {
		return nil, f.refuse
	}
	f.started.Add(1)
	f.mu.Lock()
	if len(f.last) < 16 {
		f.last = append(f.last, r)
	}
	f.mu.Unlock()
	ch := make(chan runtime.Event, 16)
	f.running.Add(1)
	go f.run(ctx, r, ch)
	return ch, nil
}

func (f *fakeEngine) run(ctx context.Context, r runtime.Request, ch chan<- runtime.Event) {
	defer close(ch)
	defer f.running.Add(-1)
	send := func(ev runtime.Event) bool {
		select {
		case ch <- ev:
			return true
		case <-ctx.Done():
			return false
		}
	}
	wait := func(c <-chan struct{}) bool {
		if c == nil {
			return true
		}
		select {
		case <-c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	usage := runtime.Usage{PromptTokens: len(r.Prompt), CachedTokens: f.cached}
	reason := func() runtime.Reason {
		if !wait(f.admit) || !send(runtime.Event{Kind: runtime.EventAdmitted, CachedTokens: f.cached}) {
			return runtime.ReasonCancelled
		}
		if r.Progress {
			half := (f.cached + len(r.Prompt)) / 2
			if !send(runtime.Event{Kind: runtime.EventProgress, Processed: half}) {
				return runtime.ReasonCancelled
			}
		}
		if !wait(f.first) {
			return runtime.ReasonCancelled
		}
		n, reason := f.tokens, runtime.ReasonStop
		if n == 0 {
			n = 5
		}
		if r.MaxTokens > 0 && r.MaxTokens < n {
			n, reason = r.MaxTokens, runtime.ReasonLength
		}
		pause := time.NewTimer(f.gap)
		defer pause.Stop()
		for i := range n {
			if i > 0 && f.gap > 0 {
				pause.Reset(f.gap)
				select {
				case <-pause.C:
				case <-ctx.Done():
					return runtime.ReasonCancelled
				}
			}
			text := "w" + string(rune('0'+i%10)) + " "
			if f.text != nil {
				text = f.text(i)
			}
			tokens := someToken
			if r.Sampling.Logprobs {
				tok := runtime.Token{ID: int32(i), Bytes: []byte(text), Logprob: -.5}
				for k := range r.Sampling.TopLogprobs {
					tok.Top = append(tok.Top, runtime.TokenLogprob{ID: int32(k), Bytes: []byte{byte('a' + k)}, Logprob: -float32(k)})
				}
				tokens = []runtime.Token{tok}
			}
			usage.CompletionTokens++
			if !send(runtime.Event{Kind: runtime.EventText, Text: strings.ToValidUTF8(text, ""), Tokens: tokens}) {
				return runtime.ReasonCancelled
			}
		}
		if f.fail != nil {
			return runtime.ReasonError
		}
		return reason
	}()
	if ctx.Err() != nil && reason == runtime.ReasonCancelled {
		f.ended <- ending{context.Cause(ctx), time.Now()}
	}
	if f.cutOff {
		return
	}
	send(runtime.Event{Kind: runtime.EventFinished, Reason: reason, Usage: usage, Err: f.fail,
		Timings: runtime.Timings{Queue: time.Millisecond, Prefill: 2 * time.Millisecond, Decode: 3 * time.Millisecond}})
}

// testServer is a Server on a socket of the loopback interface.
type testServer struct {
	*Server
	addr string
	http *http.Client
}

func (ts *testServer) url(path string) string { return "http://" + ts.addr + path }

// newServer starts a server that is shut down when the test ends.
func newServer(t testing.TB, engine Engine, o Options) *testServer {
	t.Helper()
	s, err := New(engine, o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	tr := &http.Transport{}
	ts := &testServer{Server: s, addr: ln.Addr().String(), http: &http.Client{Transport: tr, Timeout: 30 * time.Second}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ts
}

// reply is a response read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request with a JSON body (none when empty) and reads the response.
func (ts *testServer) do(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, ts.url(path), reader)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if strings.EqualFold(headers[i], "Host") {
			req.Host = headers[i+1]
		}
	}
	res, err := ts.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, b}
}

func (ts *testServer) post(t testing.TB, path, body string, headers ...string) reply {
	t.Helper()
	return ts.do(t, http.MethodPost, path, body, headers...)
}

// wireError is OpenAI's error object.
type wireError struct {
	Message      string  `json:"message"`
	Type         string  `json:"type"`
	Param        *string `json:"param"`
	Code         string  `json:"code"`
	PromptTokens int     `json:"n_prompt_tokens"`
	Context      int     `json:"n_ctx"`
}

// parseError checks that body is an error response in OpenAI's shape: the four
// members are there, code and type are strings, param is a string or null.
func parseError(t testing.TB, body []byte) wireError {
	t.Helper()
	var shape struct {
		Error map[string]json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(body, &shape); err != nil {
		t.Fatalf("the error body is not JSON: %v: %q", err, body)
	}
	for _, member := range []string{"message", "type", "param", "code"} {
		if _, ok := shape.Error[member]; !ok {
			t.Errorf("the error lacks %q: %s", member, body)
		}
	}
	var whole struct {
		Error wireError `json:"error"`
	}
	if err := json.Unmarshal(body, &whole); err != nil {
		t.Fatalf("the error object has wrong types: %v: %s", err, body)
	}
	if whole.Error.Message == "" || whole.Error.Type == "" || whole.Error.Code == "" {
		t.Errorf("empty members in %s", body)
	}
	return whole.Error
}

// raw sends bytes over a fresh connection and returns what comes back until the
// server closes it or the deadline passes.
func (ts *testServer) raw(t testing.TB, request string) []byte {
	t.Helper()
	c, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("write: %v", err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Logf("read: %v", err)
	}
	return b
}

// dial opens a connection and posts a request on it.
func (ts *testServer) dial(t testing.TB, path, body string) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	if err != nil {
		t.Fatal(err)
	}
	return nc.(*net.TCPConn)
}

// readUntil reads until what was read contains mark.
func readUntil(t testing.TB, r io.Reader, mark string) []byte {
	t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(mark)) {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", mark, err, got)
		}
	}
	return got
}

// splitResponse returns the status line and the body of a raw response.
func splitResponse(t testing.TB, raw []byte) (status string, body []byte) {
	t.Helper()
	head, body, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("no HTTP response: %q", raw)
	}
	line, _, _ := strings.Cut(string(head), "\r\n")
	return line, body
}

// frames returns the data of each server-sent event, comments left out.
func frames(t testing.TB, body []byte) []string {
	t.Helper()
	var out []string
	for block := range strings.SplitSeq(strings.TrimSuffix(string(body), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(block, "data: ")
		switch {
		case ok:
			out = append(out, data)
		case !strings.HasPrefix(block, ": "):
			t.Errorf("neither data nor a comment: %q", block)
		}
	}
	return out
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
