package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
)

// Options say how a Server behaves. The zero value is a server without API keys
// and with the default limits.
type Options struct {
	// Version is what GET /version says.
	Version string
	// APIKeys, when there are any, are needed for every endpoint but /health and
	// /ready.
	APIKeys []APIKey
	// PublicMetrics opens /metrics to everybody when there are API keys.
	PublicMetrics bool
	// AllowedHosts, when there are any, are the names (without port) that the
	// Host header may carry: a web page cannot then reach a server on the
	// loopback interface by making its own name resolve to it.
	AllowedHosts []string
	// CORSOrigins are the origins, or "*", whose web pages may call the server.
	CORSOrigins []string
	Limits      Limits
	Timeouts    Timeouts
	// Logger receives failures and, at level debug, a line a request. Prompts and
	// answers are never logged. Nil discards all.
	Logger *slog.Logger
}

// Server is the HTTP side of an engine.
type Server struct {
	engine  Engine
	opts    Options
	keys    keyring
	hosts   map[string]struct{}
	log     *slog.Logger
	metrics *metrics
	queue   *admission
	peers   *peerWatcher
	memory  budget
	app     *fiber.App

	// base is the parent of all requests' contexts; cancelBase ends them.
	base       context.Context
	cancelBase context.CancelCauseFunc

	mu        sync.Mutex
	draining  bool
	live      int           // generations under way
	idle      chan struct{} // closed when draining and live is 0
	listeners []*listener
}

// New returns a Server in front of engine. Call Shutdown to release what it holds,
// also when Serve was never called.
func New(engine Engine, o Options) (*Server, error) {
	var err error
	if o.Limits, err = o.Limits.withDefaults(); err != nil {
		return nil, err
	}
	if o.Timeouts, err = o.Timeouts.withDefaults(); err != nil {
		return nil, err
	}
	if len(engine.Models()) == 0 {
		return nil, errors.New("gateway: the engine has no model")
	}
	s := &Server{
		engine:  engine,
		opts:    o,
		keys:    keyring(o.APIKeys),
		log:     o.Logger,
		metrics: newMetrics(engine),
		queue:   newAdmission(o.Limits),
		idle:    make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if len(o.AllowedHosts) > 0 {
		s.hosts = make(map[string]struct{}, len(o.AllowedHosts))
		for _, h := range o.AllowedHosts {
			s.hosts[h] = struct{}{}
		}
	}
	if s.peers, err = newPeerWatcher(); err != nil {
		return nil, err
	}
	s.memory.left.Store(int64(o.Limits.BodyMemory))
	s.base, s.cancelBase = context.WithCancelCause(context.Background())
	s.app = s.newApp()
	return s, nil
}

// Serve answers on ln until Shutdown, then returns nil; after Shutdown it returns
// nil at once. It may be called for several listeners at a time. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	l := newListener(ln, s.opts.Limits.Connections, s.opts.Timeouts.Flush, &s.memory)
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	if err := s.app.Server().Serve(l); err != nil {
		return fmt.Errorf("gateway: serve: %w", err)
	}
	return nil
}

// shutdownGrace is what requests get after the drain deadline to tell their
// clients that they were cut.
const shutdownGrace = 2 * time.Second

// Shutdown drains the server: new requests are refused with 503 while health and
// metrics still answer, running ones finish. When ctx ends first, the remaining
// ones are cancelled and their clients get an error. Then the listeners and
// connections are closed. It returns ctx's error when requests had to be cut.
// Calls after the first return at once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil
	}
	s.draining = true
	if s.live == 0 {
		close(s.idle)
	}
	s.mu.Unlock()

	var cut error
	select {
	case <-s.idle:
	case <-ctx.Done():
		cut = ctx.Err()
	}
	s.cancelBase(errShutdown)
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	select {
	case <-s.idle:
	case <-grace.Done():
	}

	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Listener.Close() // fasthttp closes it again and ignores the error
		l.closeAll()
	}
	// Every connection is closed: what is left is for their goroutines to notice.
	err := s.app.Server().ShutdownWithContext(grace)
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(cut, err, s.peers.close())
}

// Draining reports whether Shutdown has been called.
func (s *Server) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// enter registers a generation. It fails while draining.
func (s *Server) enter() *apiError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return shutdownError()
	}
	s.live++
	return nil
}

// leave undoes enter.
func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live--
	if s.draining && s.live == 0 {
		close(s.idle)
	}
}

// shutdownError tells a client to come back when a successor may be there.
func shutdownError() *apiError {
	e := newError(kindShutdown)
	e.retryAfter = 5 * time.Second
	return e
}
