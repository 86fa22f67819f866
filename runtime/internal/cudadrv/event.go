//go:build cuda

package cudadrv

import (
	"errors"
	"time"

	"gorgonia.org/cu"
)

// Event is a mark in a stream. It can be recorded again and again.
type Event struct{ e cu.Event }

// NewEvent makes an event.
func (c *Context) NewEvent() (*Event, error) { return newEvent() }

func newEvent() (*Event, error) {
	e, err := cu.MakeEvent(cu.DefaultEvent)
	if err != nil {
		return nil, check("cuEventCreate", err)
	}
	return &Event{e}, nil
}

// Record puts the mark behind everything that is in the stream.
func (e *Event) Record(s *Stream) error { return check("cuEventRecord", e.e.Record(s.s)) }

// Wait blocks until the stream has passed the mark. It reports errors of the kernels
// before it.
func (e *Event) Wait() error { return check("cuEventSynchronize", e.e.Synchronize()) }

// Since returns the time that the device took from an earlier mark to this one. Both
// must have been passed.
func (e *Event) Since(earlier *Event) (time.Duration, error) {
	ms, err := earlier.e.Elapsed(e.e)
	return time.Duration(ms * float64(time.Millisecond)), check("cuEventElapsedTime", err)
}

// Close destroys the event.
func (e *Event) Close() error { return check("cuEventDestroy", cu.DestroyEvent(&e.e)) }

// Time returns how long the device takes for what f adds to the stream, and waits
// for it.
func (s *Stream) Time(f func() error) (took time.Duration, err error) {
	var events [2]*Event
	for i := range events {
		if events[i], err = newEvent(); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, events[i].Close()) }()
	}
	if err := events[0].Record(s); err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	if err := events[1].Record(s); err != nil {
		return 0, err
	}
	if err := s.Wait(); err != nil {
		return 0, err
	}
	return events[1].Since(events[0])
}
