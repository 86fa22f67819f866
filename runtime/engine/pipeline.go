package engine

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/moaserve/moaserve/runtime/backend"
)

// pipeline is a device as the engine drives it: steps begin and are answered, in
// order.
type pipeline = backend.Ahead

// inTurn returns a device as a pipeline. One that cannot work ahead computes a step
// when its answer is wanted.
func inTurn(dev backend.Device) pipeline {
	if p, ok := dev.(backend.Ahead); ok {
		return p
	}
	return &stepper{Device: dev}
}

// stepper makes a pipeline of a device whose steps are calls.
type stepper struct {
	backend.Device
	next *backend.Batch
}

var _ pipeline = (*stepper)(nil)

// Begin keeps the batch for End.
func (s *stepper) Begin(b *backend.Batch) (bool, error) {
	s.next = b
	return false, nil
}

// End computes the batch.
func (s *stepper) End() (*backend.Result, error) { return s.Step(s.next) }

// deviceBegin starts a step on the device.
func (e *Engine) deviceBegin(st *step) (onDevice bool, err error) {
	defer e.recovered(&err)
	if onDevice, err = e.dev.Begin(&st.batch); err != nil {
		return false, fmt.Errorf("the device failed: %w", err)
	}
	return onDevice, nil
}

// deviceEnd waits for the oldest step's answer.
func (e *Engine) deviceEnd(st *step) (r *backend.Result, err error) {
	defer e.recovered(&err)
	rows := len(st.batch.Rows)
	r, err = e.dev.End()
	switch {
	case err != nil:
		return nil, fmt.Errorf("the device failed: %w", err)
	case r == nil || len(r.Choices) != rows || len(r.Logits) != rows:
		return nil, fmt.Errorf("the device failed: it did not answer the %d rows of the batch", rows)
	}
	return r, nil
}

// recovered turns a panic of the device into an error like another: it must not end
// the process that serves everybody else.
func (e *Engine) recovered(err *error) {
	if p := recover(); p != nil {
		e.o.Logger.Error("the device panicked", "panic", p, "stack", string(debug.Stack()))
		*err = errors.Join(*err, fmt.Errorf("the device panicked: %v", p))
	}
}
