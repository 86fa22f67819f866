package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/moaserve/moaserve/gateway"
	"github.com/moaserve/moaserve/runtime"
)

// serveCmd serves one model.
type serveCmd struct {
	modelFlags
	Plan       string        `help:"Default plan: dense, uniform:50%, a plan file, or the name of a built-in plan for this model. Without it: moa-50 where it is known, else dense." placeholder:"PLAN"`
	Plans      []string      `help:"Further plans to offer: files, or expressions such as uniform:25%. Built-in plans for the model and dense are always offered." placeholder:"PLAN,..."`
	ServedName string        `help:"What clients call the model; by default the file's name." placeholder:"NAME"`
	Listen     string        `help:"Address to listen on." default:"127.0.0.1:8080"`
	Drain      time.Duration `help:"How long running requests may go on after SIGTERM." default:"30s"`

	APIKeys       []string `help:"Keys that clients must send (Authorization: Bearer), each TENANT=KEY or KEY. Tenants do not share caches or queues." placeholder:"KEY,..."`
	APIKeyFile    string   `help:"File with one such key a line." type:"existingfile" placeholder:"FILE"`
	SharePrefixes bool     `help:"Let tenants continue each other's prefixes. One can then tell from the time a request takes what others have sent."`
	PublicMetrics bool     `help:"Leave /metrics open when there are API keys."`
	AllowedHosts  []string `help:"Names that the Host header may carry; by default any." placeholder:"HOST,..."`
	CORSOrigins   []string `name:"cors-origins" help:"Origins whose web pages may call the server, or *." placeholder:"ORIGIN,..."`
	MaxBody       size     `help:"Largest request body." default:"64MiB" placeholder:"SIZE"`
	QueueRequests int      `help:"Requests that may wait for admission." default:"256"`
	QueueTokens   int      `help:"Prompt tokens that may wait for admission." default:"4194304"`

	WarmUp        bool    `help:"Prepare the CUDA backend for the common kinds of steps before the first request." default:"true" negatable:""`
	DecodeStretch float64 `help:"How many times as long the step between two tokens may take while prompts of others are read. More reads prompts faster, less keeps tokens flowing." default:"2.5"`

	KVDir     string `help:"Directory in which prefixes outlive the server, so that after a restart known documents need not be read again. It holds text in effect: keep it private." type:"path" placeholder:"DIR"`
	KVDirSize size   `help:"Largest size of that directory." default:"4GiB" placeholder:"SIZE"`

	LogLevel  string `help:"Log level: ${enum}." enum:"debug,info,warn,error" default:"info"`
	LogFormat string `help:"Log format: ${enum}." enum:"text,json" default:"text"`
}

// Run serves until the first signal, then drains. It fails when the device is lost.
func (c *serveCmd) Run(ctx context.Context) error {
	log, err := newLogger(c.LogLevel, c.LogFormat)
	if err != nil {
		return err
	}
	keys, err := c.apiKeys()
	if err != nil {
		return err
	}
	// Taking the address first: an occupied port is found before the model is read.
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer func() { _ = listener.Close() }()

	o, err := c.options()
	if err != nil {
		return err
	}
	o.Name, o.Plan, o.Plans, o.Logger = c.ServedName, c.Plan, c.Plans, log
	o.MaxQueuedRequests, o.MaxQueuedTokens = c.QueueRequests, c.QueueTokens
	o.KVDir, o.KVDirBytes, o.Build = c.KVDir, int64(c.KVDirSize), version
	o.DecodeStretch = c.DecodeStretch
	o.SharePrefixes, o.Warm = c.SharePrefixes, c.WarmUp
	o.Progress = loadProgress(c.LogFormat)
	start := time.Now()
	e, err := runtime.Open(ctx, c.Model, o)
	if err != nil {
		return err
	}
	server, err := gateway.New(newServed(e, start), gateway.Options{
		Version: version, APIKeys: keys, PublicMetrics: c.PublicMetrics, AllowedHosts: c.AllowedHosts, CORSOrigins: c.CORSOrigins, Logger: log,
		Limits: gateway.Limits{BodyBytes: int(c.MaxBody), BodyMemory: max(int(c.MaxBody), 1<<30), QueuedRequests: c.QueueRequests, QueuedTokens: c.QueueTokens},
	})
	if err != nil {
		return errors.Join(err, e.Close())
	}
	plan := e.Plans()[0]
	log.Info("serving",
		"model", e.Name(), "plan", plan.Name, "density", fmt.Sprintf("%.2f", plan.Density(e.Context())), "plans", planNames(e), "context", e.Context(),
		"kv_pages", e.KVPages(), "kv_bytes", e.KVBytes(), "backend", e.Describe(), "api_keys", len(keys), "address", listener.Addr().String(),
		"loaded_in", time.Since(start).Round(time.Millisecond).String())

	if len(keys) == 0 && !isLoopback(listener.Addr()) {
		log.Warn("there are no API keys: whoever reaches the address may use the server (--api-keys, --api-key-file)")
	}

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	shutDown := func() error {
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Drain)
		defer cancel()
		if cut := server.Shutdown(deadline); cut != nil {
			log.Warn("requests were cut at the drain deadline", "error", cut.Error())
		}
		return <-served
	}
	select {
	case err = <-served:
	case <-ctx.Done():
		log.Info("draining", "at_most", c.Drain.String())
		err = shutDown()
	case <-e.Lost():
		// Whoever watches the process starts a new one; here nothing will work again.
		log.Error("the device is lost, the server ends", "error", e.Healthy())
		time.Sleep(lostNotice)
		err = errors.Join(e.Healthy(), shutDown())
	}
	return errors.Join(err, e.Close())
}

// lostNotice is how long a server whose device is lost still answers, with errors, so
// that balancers that ask /ready every second see it fail before connections do.
const lostNotice = 2 * time.Second

// loadProgress draws a bar on a terminal and nothing elsewhere.
func loadProgress(format string) func(done, total int64) {
	if format != "text" || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	var bar *progressbar.ProgressBar
	return func(done, total int64) {
		if bar == nil {
			bar = progressbar.DefaultBytes(total, "loading")
		}
		_ = bar.Set64(done)
	}
}

func planNames(e *runtime.Engine) string {
	var names []string
	for _, p := range e.Plans() {
		names = append(names, p.Name)
	}
	return strings.Join(names, ",")
}

func newLogger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, err
	}
	o := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
