package jinja

import (
	"errors"
	"fmt"
)

// arguments are the arguments of a call, filter or test.
type arguments struct {
	pos      []expr
	names    []string // of named
	named    []expr
	star     expr // *args, or nil
	starStar expr // **kwargs, or nil
}

func (a *arguments) eval(st *state) (*args, error) {
	pos, err := evalAll(st, a.pos)
	if err != nil {
		return nil, err
	}
	out := &args{pos: pos}
	for i, e := range a.named {
		v, err := e.eval(st)
		if err != nil {
			return nil, err
		}
		out.named = append(out.named, namedArg{a.names[i], v})
	}
	if a.star != nil {
		v, err := a.star.eval(st)
		if err != nil {
			return nil, err
		}
		items, err := st.items(v)
		if err != nil {
			return nil, err
		}
		if err := st.build(len(items) * valueBytes); err != nil {
			return nil, err
		}
		out.pos = append(out.pos, items...)
	}
	if a.starStar != nil {
		v, err := a.starStar.eval(st)
		if err != nil {
			return nil, err
		}
		return out, out.addNamed(st, v)
	}
	return out, nil
}

// addNamed adds the items of a mapping as named arguments.
func (a *args) addNamed(st *state, v Value) error {
	d, ok := v.(*Dict)
	if !ok {
		return fmt.Errorf("the argument after ** must be a mapping, not %s", typeName(v))
	}
	if err := st.build(d.Len() * 2 * valueBytes); err != nil {
		return err
	}
	given := map[string]bool{}
	for _, n := range a.named {
		given[n.name] = true
	}
	for i, k := range d.keys {
		name, ok := text(k)
		if !ok {
			return errors.New("keywords must be strings")
		}
		if given[name] {
			return fmt.Errorf("got multiple values for keyword argument '%s'", name)
		}
		a.named = append(a.named, namedArg{name, d.values[i]})
	}
	return nil
}

type callExpr struct {
	line int
	f    expr
	args arguments
}

func (e *callExpr) eval(st *state) (Value, error) {
	return e.evalWith(st, nil)
}

// evalWith calls with a caller, when it is not nil.
func (e *callExpr) evalWith(st *state, caller *macro) (Value, error) {
	f, self, err := e.callee(st)
	if err != nil {
		return nil, err
	}
	a, err := e.args.eval(st)
	if err != nil {
		return nil, at(e.line, err)
	}
	if caller != nil {
		if a.take("caller") != nil {
			return nil, at(e.line, errors.New("got multiple values for keyword argument 'caller'"))
		}
		a.named = append(a.named, namedArg{"caller", caller})
	}
	if m, ok := f.(*stringMethod); ok {
		if err := st.step(); err != nil {
			return nil, err
		}
		v, err := callString(st, self, m, a)
		return v, at(e.line, err)
	}
	v, err := call(st, f, a)
	return v, at(e.line, err)
}

// callee returns what to call. For a string method it is the method, and self
// the string: so no bound method has to be made.
func (e *callExpr) callee(st *state) (f, self Value, err error) {
	attr, ok := e.f.(*attrExpr)
	if !ok {
		f, err = e.f.eval(st)
		return f, nil, err
	}
	self, err = attr.e.eval(st)
	if err != nil {
		return nil, nil, err
	}
	if _, ok := text(self); ok {
		if m, ok := stringMethods[attr.name]; ok {
			return m, self, nil
		}
	}
	f, err = getAttr(st, self, attr.name)
	return f, nil, at(attr.line, err)
}

// filterExpr is e|name(args). The filters of a block have no e and are applied to
// its text.
type filterExpr struct {
	line   int
	name   string
	filter filter // nil when there is none of that name
	e      expr
	args   arguments
}

func (e *filterExpr) eval(st *state) (Value, error) {
	v, err := e.e.eval(st)
	if err != nil {
		return nil, err
	}
	return e.apply(st, v)
}

func (e *filterExpr) apply(st *state, v Value) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	if e.filter == nil {
		return nil, at(e.line, fmt.Errorf("no filter named '%s'", e.name))
	}
	a, err := e.args.eval(st)
	if err != nil {
		return nil, at(e.line, err)
	}
	v, err = e.filter(st, v, a)
	return v, at(e.line, err)
}

// testExpr is e is name(args).
type testExpr struct {
	line int
	name string
	test test // nil when there is none of that name
	e    expr
	args arguments
}

func (e *testExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	v, err := e.e.eval(st)
	if err != nil {
		return nil, err
	}
	if e.test == nil {
		return nil, at(e.line, fmt.Errorf("no test named '%s'", e.name))
	}
	a, err := e.args.eval(st)
	if err != nil {
		return nil, at(e.line, err)
	}
	ok, err := e.test(st, v, a)
	if err != nil {
		return nil, at(e.line, err)
	}
	return ok, nil
}
