package jinja

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
