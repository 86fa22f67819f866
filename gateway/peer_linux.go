package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peerWatcher tells requests that their client has gone. fasthttp reads nothing
// while a handler runs, so nothing else would notice before a write fails, and
// during a prefill nothing is written.
//
// One epoll set holds the sockets of all running requests. EPOLLRDHUP is used
// rather than a peek at the receive buffer because it also shows when unread
// bytes precede the end. The set itself is waited for by the Go netpoller: the
// watcher costs one goroutine and no thread.
type peerWatcher struct {
	epoll *os.File
	raw   syscall.RawConn
	done  chan struct{}

	mu      sync.Mutex
	next    uint64
	watches map[uint64]*peerWatch
}

// peerWatch is the watch over one request's client.
type peerWatch struct {
	w      *peerWatcher
	id     uint64
	conn   syscall.RawConn
	cancel context.CancelCauseFunc
	fin    chan struct{}
	once   sync.Once
}

func newPeerWatcher() (*peerWatcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("gateway: epoll: %w", err)
	}
	// Non-blocking makes os.NewFile hand the descriptor to the netpoller.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("gateway: epoll: %w", err)
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("gateway: epoll: %w", err)
	}
	w := &peerWatcher{epoll: file, raw: raw, done: make(chan struct{}), watches: make(map[uint64]*peerWatch)}
	go w.run()
	return w, nil
}

// run waits for events until close.
func (w *peerWatcher) run() {
	defer close(w.done)
	events := make([]unix.EpollEvent, 128)
	for {
		var n int
		var pollErr error
		err := w.raw.Read(func(fd uintptr) bool {
			for {
				n, pollErr = unix.EpollWait(int(fd), events, 0)
				if !errors.Is(pollErr, unix.EINTR) {
					return n > 0 || pollErr != nil
				}
			}
		})
		if err != nil || pollErr != nil {
			return // closed
		}
		for i := range events[:n] {
			w.event(&events[i])
		}
	}
}

// event delivers one event. It must not block.
func (w *peerWatcher) event(ev *unix.EpollEvent) {
	id := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
	w.mu.Lock()
	p := w.watches[id]
	w.mu.Unlock()
	if p == nil {
		return
	}
	if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		p.cancel(errClientGone)
		return
	}
	if ev.Events&unix.EPOLLRDHUP != 0 {
		p.once.Do(func() { close(p.fin) })
	}
}

// watch begins to watch a request's client: cancel is called with errClientGone
// when the connection is reset, halfClosed is closed when the client has ended
// its sending side. A connection that is no socket is not watched.
func (w *peerWatcher) watch(nc net.Conn, cancel context.CancelCauseFunc) *peerWatch {
	p := &peerWatch{w: w, cancel: cancel, fin: make(chan struct{})}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return p
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return p
	}
	w.mu.Lock()
	w.next++
	p.id = w.next
	w.watches[p.id] = p
	w.mu.Unlock()
	var ctlErr error
	err = raw.Control(func(fd uintptr) {
		// The event's data is the watch, not the descriptor: descriptors are
		// reused. Edge-triggered: the end of the stream and a later reset are
		// reported once each.
		ev := unix.EpollEvent{
			Events: unix.EPOLLRDHUP | unix.EPOLLET,
			Fd:     int32(uint32(p.id)),
			Pad:    int32(uint32(p.id >> 32)),
		}
		ctlErr = w.control(unix.EPOLL_CTL_ADD, int(fd), &ev)
	})
	if err != nil || ctlErr != nil {
		w.forget(p.id)
		p.id = 0
		return p
	}
	p.conn = raw
	return p
}

// control changes the epoll set.
func (w *peerWatcher) control(op, fd int, ev *unix.EpollEvent) error {
	var ctlErr error
	err := w.raw.Control(func(epfd uintptr) { ctlErr = unix.EpollCtl(int(epfd), op, fd, ev) })
	if err != nil {
		return err
	}
	return ctlErr
}

func (w *peerWatcher) forget(id uint64) {
	w.mu.Lock()
	delete(w.watches, id)
	w.mu.Unlock()
}

// halfClosed is closed when the client will send no more: it has gone, or it has
// closed its sending side and still reads. Only writing to it tells which.
func (p *peerWatch) halfClosed() <-chan struct{} { return p.fin }

// stop ends the watch.
func (p *peerWatch) stop() {
	if p.id == 0 {
		return
	}
	// A closed connection has left the set by itself.
	_ = p.conn.Control(func(fd uintptr) {
		_ = p.w.control(unix.EPOLL_CTL_DEL, int(fd), nil)
	})
	p.w.forget(p.id)
}

// close ends the watcher and waits for its goroutine.
func (w *peerWatcher) close() error {
	err := w.epoll.Close()
	<-w.done
	return err
}

// tuneSocket bounds how long a client that vanished without a word (power, cable)
// is kept: unacknowledged data fails after the flush deadline, as data that a
// living client does not read does.
func tuneSocket(nc net.Conn, flush time.Duration) {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn()
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// Best effort: without it such a client costs its stream for some minutes.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(flush.Milliseconds()))
	})
}
