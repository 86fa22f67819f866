package jinja

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
