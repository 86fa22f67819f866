package gateway

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// writePiece is what one flush deadline covers at most, so that a large
	// response to a slow but reading client is not cut: 64 KiB in 10 s is 6.5 kB/s.
	writePiece = 64 << 10
	// lingerTime and lingerBytes bound how long a refused client may go on
	// sending before its connection is closed. Without it the kernel answers the
	// unread bytes with a reset, and the client never sees the error.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 4 << 20
)

// listener wraps the connections of a net.Listener, counts them and closes them
// all at the end.
type listener struct {
	net.Listener
	flush  time.Duration
	limit  int
	memory *budget

	mu    sync.Mutex
	conns map[*conn]struct{}
}

func newListener(ln net.Listener, limit int, flush time.Duration, memory *budget) *listener {
	return &listener{Listener: ln, flush: flush, limit: limit, memory: memory, conns: make(map[*conn]struct{})}
}

// Accept returns the next connection. One too many is told so and closed here:
// fasthttp's own refusal is plain text. Errors that pass are waited out: fasthttp
// would stop serving for want of a file descriptor.
func (l *listener) Accept() (net.Conn, error) {
	for pause := acceptPause; ; {
		nc, err := l.Listener.Accept()
		if passing(err) {
			time.Sleep(pause)
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		if err != nil {
			return nil, err
		}
		pause = acceptPause
		c := &conn{Conn: nc, l: l}
		l.mu.Lock()
		full := len(l.conns) >= l.limit
		if !full {
			l.conns[c] = struct{}{}
		}
		l.mu.Unlock()
		if !full {
			tuneSocket(nc, l.flush)
			return c, nil
		}
		refuse(nc)
	}
}

// The pauses of net/http, which faces the same choice.
const (
	acceptPause    = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// passing reports whether an error of accept says nothing about the listener: a
// connection that went before it was taken, or a shortage.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refuse answers a connection above the limit. The answer fits any socket
// buffer, so that the short deadline never holds up Accept.
func refuse(nc net.Conn) {
	e := newError(kindOverloaded)
	e.retryAfter = retryDefault
	var ctx fasthttp.RequestCtx
	writeError(&ctx, e)
	ctx.Response.SetConnectionClose()
	_ = nc.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	_, _ = ctx.Response.WriteTo(nc) // the client may have gone: nothing is lost
	_ = nc.Close()
}

// closeAll closes every open connection.
func (l *listener) closeAll() {
	l.mu.Lock()
	conns := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		_ = c.Conn.Close() // its goroutine sees the error and calls c.Close
	}
}

// conn is a client's connection. Each write to it has its own deadline: a global
// write timeout would cut healthy streams, none would keep stalled readers.
type conn struct {
	net.Conn
	l      *listener
	closed atomic.Bool
	linger atomic.Bool // set by a response that refuses a body still on its way

	// received is what has been read since the last request; only the connection's
	// goroutine touches it. reserved is what of it is counted in l.memory; Close
	// gives it back from wherever it is called.
	received int64
	reserved atomic.Int64
}

// errBodyMemory fails a read when all bodies together are too large.
var errBodyMemory = errors.New("too much memory in request bodies")

// budget bounds the memory that bodies on their way take.
type budget struct {
	left atomic.Int64
}

// bodyStep is how much a connection reserves at a time, and what it may hold
// without asking: most requests never do.
const bodyStep = 64 << 10

// Read reads and accounts for what it read. Without room for it the bytes are
// dropped, since fasthttp overlooks an error that comes with some.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received += int64(n)
	for c.received-c.reserved.Load() > bodyStep {
		if c.l.memory.left.Add(-bodyStep) < 0 {
			c.l.memory.left.Add(bodyStep)
			return 0, errBodyMemory
		}
		c.reserved.Add(bodyStep)
		if c.closed.Load() {
			c.giveBack() // Close may have been just before
			return 0, net.ErrClosed
		}
	}
	return n, err
}

// releaseBody says that the present request's body is no longer held. Only the
// connection's goroutine calls it.
func (c *conn) releaseBody() {
	c.received = 0
	c.giveBack()
}

func (c *conn) giveBack() { c.l.memory.left.Add(c.reserved.Swap(0)) }

// Write writes p and fails when the client takes less than writePiece bytes
// within the flush deadline.
func (c *conn) Write(p []byte) (n int, err error) {
	for {
		piece := p[n:min(len(p), n+writePiece)]
		if err = c.Conn.SetWriteDeadline(time.Now().Add(c.l.flush)); err != nil {
			return n, err
		}
		k, err := c.Conn.Write(piece)
		n += k
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// Close closes the connection, after lingering if the last response asked for it.
// fasthttp calls it from the connection's goroutine and, for idle connections,
// from that of Shutdown.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.giveBack()
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.linger.Load() {
		if half.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
		}
	}
	err := c.Conn.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// rawConn returns the socket's connection, below TLS when there is any.
func (c *conn) rawConn() net.Conn {
	if t, ok := c.Conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c.Conn
}
