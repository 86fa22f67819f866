//go:build !linux

package gateway

import (
	"context"
	"net"
	"time"
)

// peerWatcher watches nothing here: a client that left is noticed by the failing
// write, at the latest by the ping of a silent stream.
type peerWatcher struct{}

type peerWatch struct{}

func newPeerWatcher() (*peerWatcher, error) { return &peerWatcher{}, nil }

func (*peerWatcher) watch(net.Conn, context.CancelCauseFunc) *peerWatch { return &peerWatch{} }

func (*peerWatcher) close() error { return nil }

func (*peerWatch) halfClosed() <-chan struct{} { return nil }

func (*peerWatch) stop() {}

func tuneSocket(net.Conn, time.Duration) {}
