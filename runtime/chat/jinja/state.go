package jinja

import (
	"errors"
	"fmt"
)

// state is one render.
type state struct {
	names  []string
	root   []Value // top-level variables by symbol, nil when not set
	scope  *scope  // the innermost scope, nil at the top level
	out    *output
	limits Limits
	steps  int
	bytes  int
	depth  int // nested calls
}

// scope holds the variables of a loop body, macro, call block, with block or
// another inner block. Lookups go through the parents to the top level.
type scope struct {
	parent *scope
	syms   []int
	values []Value
	// shared: a macro or caller refers to this scope, so that it must not be
	// used again for the next iteration.
	shared bool
}

// output collects text.
type output struct {
	b []byte
}

func newState(t *Template, vars *Dict, limits Limits) *state {
	st := &state{names: t.names, root: make([]Value, len(t.names)), out: &output{}, limits: limits}
	for sym, name := range t.names {
		if v, ok := vars.Get(name); ok {
			st.root[sym] = v
		} else if g, ok := globals[name]; ok {
			st.root[sym] = g
		}
	}
	return st
}

// get returns a variable, or nil.
func (st *state) get(sym int) Value {
	for s := st.scope; s != nil; s = s.parent {
		for i, have := range s.syms {
			if have == sym {
				return s.values[i]
			}
		}
	}
	return st.root[sym]
}

// set sets a variable of the innermost scope.
func (st *state) set(sym int, v Value) {
	if st.scope == nil {
		st.root[sym] = v
		return
	}
	st.scope.set(sym, v)
}

func (s *scope) set(sym int, v Value) {
	for i, have := range s.syms {
		if have == sym {
			s.values[i] = v
			return
		}
	}
	s.syms, s.values = append(s.syms, sym), append(s.values, v)
}

// push opens a scope and returns the one to go back to.
func (st *state) push() (outer *scope) {
	outer = st.scope
	st.scope = &scope{parent: outer}
	return outer
}

// share marks the scopes that a macro or caller will refer to.
func (st *state) share() *scope {
	for s := st.scope; s != nil && !s.shared; s = s.parent {
		s.shared = true
	}
	return st.scope
}

var (
	errSteps   = errors.New("the template does too much work")
	errBytes   = errors.New("the template builds too much data")
	errOutput  = errors.New("the template's output is too long")
	errNesting = errors.New("values are nested too deeply")
)

// maxNesting bounds how deep values may nest: JSON that comes in, and what is
// printed, compared or used as a key.
const maxNesting = 200

// step counts one unit of work.
func (st *state) step() error {
	if st.steps++; st.steps > st.limits.Steps {
		return errSteps
	}
	return nil
}

// scan counts the work of going through n bytes.
func (st *state) scan(n int) error {
	if st.steps += n / 32; st.steps > st.limits.Steps {
		return errSteps
	}
	return nil
}

// build counts n bytes of a new value, and the work of filling them. It is
// called before the value is made.
func (st *state) build(n int) error {
	if n < 0 || n > st.limits.Bytes-st.bytes {
		return errBytes
	}
	st.bytes += n
	return st.scan(n)
}

// valueBytes is the size of a Value in a list.
const valueBytes = 16

// text makes a string value.
func (st *state) text(s string) (Value, error) {
	if err := st.build(len(s)); err != nil {
		return nil, err
	}
	return s, nil
}

// write adds text to the output.
func (st *state) write(s string) error {
	if len(s) > st.limits.Output-len(st.out.b) {
		return errOutput
	}
	if err := st.build(len(s)); err != nil {
		return err
	}
	st.out.b = append(st.out.b, s...)
	return nil
}

// capture runs f with an output of its own and returns that.
func (st *state) capture(f func() error) (string, error) {
	outer := st.out
	st.out = &output{}
	err := f()
	s := string(st.out.b)
	st.out = outer
	return s, err
}

// enter counts a nested call; leave ends it.
func (st *state) enter() error {
	if st.depth++; st.depth > st.limits.Depth {
		return fmt.Errorf("calls are nested more than %d deep", st.limits.Depth)
	}
	return nil
}

func (st *state) leave() { st.depth-- }

// at adds the line to an error that has none.
func at(line int, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Line: line, Err: err}
}
