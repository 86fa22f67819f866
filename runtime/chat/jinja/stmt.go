package jinja

import (
	"errors"
	"fmt"
)

// stmt is a parsed statement or piece of text.
type stmt interface {
	exec(st *state) (control, error)
}

var (
	_ stmt = (*textStmt)(nil)
	_ stmt = (*outputStmt)(nil)
	_ stmt = (*setStmt)(nil)
	_ stmt = (*setBlockStmt)(nil)
	_ stmt = (*ifStmt)(nil)
	_ stmt = (*forStmt)(nil)
	_ stmt = (*controlStmt)(nil)
	_ stmt = (*macroStmt)(nil)
	_ stmt = (*callStmt)(nil)
	_ stmt = (*filterStmt)(nil)
	_ stmt = (*withStmt)(nil)
	_ stmt = (*scopeStmt)(nil)
)

// control says how a statement ended.
type control uint8

const (
	controlNone control = iota
	controlBreak
	controlContinue
)

func execAll(st *state, body []stmt) (control, error) {
	for _, s := range body {
		if c, err := s.exec(st); err != nil || c != controlNone {
			return c, err
		}
	}
	return controlNone, nil
}

// textStmt is template data.
type textStmt struct{ text string }

func (s *textStmt) exec(st *state) (control, error) {
	if err := st.step(); err != nil {
		return 0, err
	}
	return 0, st.write(s.text)
}

// outputStmt is {{ e }}.
type outputStmt struct {
	line int
	e    expr
}

func (s *outputStmt) exec(st *state) (control, error) {
	v, err := s.e.eval(st)
	if err != nil {
		return 0, at(s.line, err)
	}
	return 0, at(s.line, st.output(v))
}

// output writes what a value prints.
func (st *state) output(v Value) error {
	text, err := str(st, v)
	if err != nil {
		return err
	}
	return st.write(text)
}

// outputText writes the result of a filter or call block, which has to be text.
func (st *state) outputText(v Value) error {
	s, err := needText(v)
	if err != nil {
		return err
	}
	return st.write(s)
}

// target is what a value is assigned to: a variable, an attribute of a
// namespace, or a tuple of targets.
type target struct {
	line  int
	sym   int
	attr  string   // of the namespace in the variable sym, "" for the variable
	items []target // of a tuple
	tuple bool
}

func (t *target) assign(st *state, v Value) error {
	switch {
	case t.tuple:
		return t.unpack(st, v)
	case t.attr != "":
		ns, err := t.namespace(st)
		if err != nil {
			return err
		}
		if err := st.build(2 * valueBytes); err != nil {
			return err
		}
		ns.attrs.Set(t.attr, v)
	default:
		st.set(t.sym, v)
	}
	return nil
}

func (t *target) namespace(st *state) (*namespace, error) {
	ns, ok := st.get(t.sym).(*namespace)
	if !ok {
		return nil, errors.New("cannot assign attribute on non-namespace object")
	}
	return ns, nil
}

func (t *target) unpack(st *state, v Value) error {
	it, err := iterate(v)
	if err != nil {
		return fmt.Errorf("cannot unpack non-iterable %s object", typeName(v))
	}
	values := make([]Value, len(t.items))
	for i := range values {
		item, ok, err := st.next(it)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("not enough values to unpack (expected %d, got %d)", len(t.items), i)
		}
		values[i] = item
	}
	if _, more, err := st.next(it); err != nil {
		return err
	} else if more {
		return fmt.Errorf("too many values to unpack (expected %d)", len(t.items))
	}
	for i := range t.items {
		if err := t.items[i].assign(st, values[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkNamespaces fails when an attribute target is no namespace's.
func (t *target) checkNamespaces(st *state) error {
	if t.attr != "" {
		_, err := t.namespace(st)
		return err
	}
	for i := range t.items {
		if err := t.items[i].checkNamespaces(st); err != nil {
			return err
		}
	}
	return nil
}

// setStmt is {% set target = e %}.
type setStmt struct {
	line   int
	target target
	e      expr
}

func (s *setStmt) exec(st *state) (control, error) {
	if err := s.target.checkNamespaces(st); err != nil {
		return 0, at(s.line, err)
	}
	v, err := s.e.eval(st)
	if err != nil {
		return 0, at(s.line, err)
	}
	return 0, at(s.line, s.target.assign(st, v))
}

// captureBody runs a body in a scope of its own and returns its output and how
// it ended. The scope stays open for f.
func captureBody(st *state, body []stmt, f func(text Value) error) (control, error) {
	outer := st.push()
	defer func() { st.scope = outer }()
	var c control
	text, err := st.capture(func() (err error) {
		c, err = execAll(st, body)
		return err
	})
	if err != nil || c != controlNone {
		return c, err
	}
	return 0, f(text)
}

// applyFilters applies the filters of a block to its text.
func applyFilters(st *state, filters []*filterExpr, v Value) (Value, error) {
	var err error
	for _, f := range filters {
		if v, err = f.apply(st, v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// setBlockStmt is {% set target %}...{% endset %}, perhaps with filters.
type setBlockStmt struct {
	line    int
	target  target
	filters []*filterExpr
	body    []stmt
}

func (s *setBlockStmt) exec(st *state) (control, error) {
	var value Value
	c, err := captureBody(st, s.body, func(text Value) (err error) {
		value, err = applyFilters(st, s.filters, text)
		return err
	})
	if err != nil || c != controlNone {
		return c, at(s.line, err)
	}
	return 0, at(s.line, s.target.assign(st, value))
}

// filterStmt is {% filter name %}...{% endfilter %}.
type filterStmt struct {
	line    int
	filters []*filterExpr
	body    []stmt
}

func (s *filterStmt) exec(st *state) (control, error) {
	c, err := captureBody(st, s.body, func(text Value) error {
		v, err := applyFilters(st, s.filters, text)
		if err != nil {
			return err
		}
		return st.outputText(v)
	})
	return c, at(s.line, err)
}

// ifStmt is a chain of conditions with bodies, and the else body.
type ifStmt struct {
	line     int
	branches []branch
	other    []stmt
}

type branch struct {
	test expr
	body []stmt
}

func (s *ifStmt) exec(st *state) (control, error) {
	for i := range s.branches {
		b := &s.branches[i]
		ok, err := evalTruth(st, b.test)
		if err != nil {
			return 0, at(s.line, err)
		}
		if ok {
			return execAll(st, b.body)
		}
	}
	return execAll(st, s.other)
}

// forStmt is a loop.
type forStmt struct {
	line      int
	target    target
	iter      expr
	test      expr // the if of the loop, or nil
	body      []stmt
	other     []stmt // the else body
	loop      int    // the symbol of the loop variable, -1 when the body does not use it
	recursive bool
}

func (s *forStmt) exec(st *state) (control, error) {
	v, err := s.iter.eval(st)
	if err != nil {
		return 0, at(s.line, err)
	}
	if s.recursive {
		text, err := s.render(st, st.share(), v, 0)
		if err != nil {
			return 0, err
		}
		return 0, at(s.line, st.output(text))
	}
	return s.run(st, v, 0, nil)
}

// render runs a recursive loop from the scope where it stands.
func (s *forStmt) render(st *state, home *scope, v Value, depth0 int) (Value, error) {
	if err := st.enter(); err != nil {
		return nil, at(s.line, err)
	}
	defer st.leave()
	outer := st.scope
	st.scope = home
	defer func() { st.scope = outer }()
	return st.capture(func() error {
		_, err := s.run(st, v, depth0, home)
		return err
	})
}

func (s *forStmt) run(st *state, v Value, depth0 int, home *scope) (control, error) {
	it, err := iterate(v)
	if err != nil {
		return 0, at(s.line, err)
	}
	size := -1
	if s.test != nil {
		it = filtered(it, s.keep(st.scope))
	} else if _, lazy := v.(*generator); !lazy && s.loop >= 0 {
		if size, err = length(st, v); err != nil {
			return 0, at(s.line, err)
		}
	}
	loop := newLoop(it, size)
	loop.depth0 = depth0
	if s.recursive {
		loop.recurse = func(st *state, v Value, depth0 int) (Value, error) { return s.render(st, home, v, depth0) }
	}
	completed, err := s.iterate(st, loop)
	if err != nil || completed || len(s.other) == 0 {
		return 0, err
	}
	outer := st.push()
	defer func() { st.scope = outer }()
	return execAll(st, s.other)
}

// keep evaluates the loop's condition for a value, in a scope of its own beside
// the body's: the condition may be evaluated while the body runs, when that asks
// for loop.last.
func (s *forStmt) keep(outer *scope) func(st *state, v Value) (bool, error) {
	return func(st *state, v Value) (bool, error) {
		inner := st.scope
		st.scope = &scope{parent: outer}
		defer func() { st.scope = inner }()
		if err := s.target.assign(st, v); err != nil {
			return false, err
		}
		return evalTruth(st, s.test)
	}
}

// iterate runs the body for each value. completed says that at least one
// iteration reached its end, without which the else body runs.
func (s *forStmt) iterate(st *state, loop *loopContext) (completed bool, err error) {
	outer := st.push()
	defer func() { st.scope = outer }()
	for {
		v, ok, err := loop.advance(st)
		if err != nil || !ok {
			return completed, at(s.line, err)
		}
		if inner := st.scope; inner.shared {
			st.scope = &scope{parent: outer}
		} else {
			inner.syms, inner.values = inner.syms[:0], inner.values[:0]
		}
		if s.loop >= 0 {
			st.scope.set(s.loop, loop)
		}
		if err := s.target.assign(st, v); err != nil {
			return false, at(s.line, err)
		}
		c, err := execAll(st, s.body)
		switch {
		case err != nil:
			return false, err
		case c == controlBreak:
			return completed, nil
		case c == controlNone:
			completed = true
		}
	}
}

// controlStmt is break or continue.
type controlStmt struct{ c control }

func (s *controlStmt) exec(*state) (control, error) { return s.c, nil }

// macroStmt defines a macro.
type macroStmt struct {
	sym int
	def *macroDef
}

func (s *macroStmt) exec(st *state) (control, error) {
	if err := st.step(); err != nil {
		return 0, err
	}
	st.set(s.sym, &macro{def: s.def, scope: st.share()})
	return 0, nil
}

// callStmt is {% call(params) f(args) %}...{% endcall %}: the body is the caller.
type callStmt struct {
	line int
	call *callExpr
	def  *macroDef
}

func (s *callStmt) exec(st *state) (control, error) {
	v, err := s.call.evalWith(st, &macro{def: s.def, scope: st.share()})
	if err != nil {
		return 0, at(s.line, err)
	}
	return 0, at(s.line, st.outputText(v))
}

// withStmt is {% with a = e, ... %}: the values do not see the new variables.
type withStmt struct {
	line    int
	targets []target
	values  []expr
	body    []stmt
}

func (s *withStmt) exec(st *state) (control, error) {
	values, err := evalAll(st, s.values)
	if err != nil {
		return 0, at(s.line, err)
	}
	outer := st.push()
	defer func() { st.scope = outer }()
	for i, v := range values {
		if err := s.targets[i].assign(st, v); err != nil {
			return 0, at(s.line, err)
		}
	}
	return execAll(st, s.body)
}

// scopeStmt is {% generation %}: the body in a scope of its own. The tag marks
// the assistant's text for training and has no effect on the output.
type scopeStmt struct{ body []stmt }

func (s *scopeStmt) exec(st *state) (control, error) {
	outer := st.push()
	defer func() { st.scope = outer }()
	return execAll(st, s.body)
}
