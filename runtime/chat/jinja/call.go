package jinja

import (
	"errors"
	"fmt"
	"slices"
)

// args are the arguments of a call.
type args struct {
	pos   []Value
	named []namedArg
}

type namedArg struct {
	name  string
	value Value
}

// bind assigns arguments to parameters, of which the first required must be
// given. Those not given are nil.
func (a *args) bind(fn string, required int, params ...string) ([]Value, error) {
	if len(a.pos) > len(params) {
		return nil, fmt.Errorf("%s() takes at most %d arguments, %d given", fn, len(params), len(a.pos))
	}
	bound := make([]Value, len(params))
	copy(bound, a.pos)
	for _, n := range a.named {
		i := slices.Index(params, n.name)
		if i < 0 {
			return nil, fmt.Errorf("%s() got an unexpected argument '%s'", fn, n.name)
		}
		if bound[i] != nil {
			return nil, fmt.Errorf("%s() got multiple values for argument '%s'", fn, n.name)
		}
		bound[i] = n.value
	}
	for i := range required {
		if bound[i] == nil {
			return nil, fmt.Errorf("%s() misses the argument '%s'", fn, params[i])
		}
	}
	return bound, nil
}

// positional is bind for functions whose parameters have no names.
func (a *args) positional(fn string, least, most int) ([]Value, error) {
	if len(a.named) > 0 {
		return nil, fmt.Errorf("%s() takes no keyword arguments", fn)
	}
	if len(a.pos) < least || len(a.pos) > most {
		return nil, fmt.Errorf("%s() takes %d to %d arguments, %d given", fn, least, most, len(a.pos))
	}
	bound := make([]Value, most)
	copy(bound, a.pos)
	return bound, nil
}

// take removes a named argument and returns its value, or nil.
func (a *args) take(name string) Value {
	for i, n := range a.named {
		if n.name == name {
			a.named = slices.Delete(slices.Clone(a.named), i, i+1)
			return n.value
		}
	}
	return nil
}

// call calls a value.
func call(st *state, f Value, a *args) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case *function:
		return f.call(st, a)
	case *macro:
		return f.call(st, a)
	case *loopContext:
		v, err := a.positional("loop", 1, 1)
		if err != nil {
			return nil, err
		}
		return f.recur(st, v[0])
	case *undefined:
		return nil, f.error()
	}
	return nil, fmt.Errorf("'%s' object is not callable", typeName(f))
}

// macro is a macro, or the body of a call block as its caller.
type macro struct {
	def   *macroDef
	scope *scope // where it was defined
}

// macroDef is the parsed definition.
type macroDef struct {
	name     string // "" for a call block
	params   []string
	syms     []int  // of the parameters
	defaults []expr // of the last parameters
	body     []stmt
	// The body uses these special variables: their symbols, or -1.
	caller, kwargs, varargs int
}

// call runs the macro and returns its output.
func (m *macro) call(st *state, a *args) (Value, error) {
	def := m.def
	sc := &scope{parent: m.scope}
	bound, err := m.bind(sc, a)
	if err != nil {
		return nil, err
	}
	if err := st.enter(); err != nil {
		return nil, err
	}
	defer st.leave()
	outer := st.scope
	st.scope = sc
	defer func() { st.scope = outer }()
	for i, v := range bound {
		if v == nil {
			if j := i - (len(def.params) - len(def.defaults)); j >= 0 {
				if v, err = def.defaults[j].eval(st); err != nil {
					return nil, err
				}
			} else {
				v = &undefined{hint: fmt.Sprintf("parameter '%s' was not provided", def.params[i])}
			}
		}
		sc.set(def.syms[i], v)
	}
	text, err := st.capture(func() error {
		_, err := execAll(st, def.body)
		return err
	})
	return text, err
}

// bind assigns the arguments to the parameters, nil for those not given, and
// sets the special variables.
func (m *macro) bind(sc *scope, a *args) ([]Value, error) {
	def := m.def
	bound := make([]Value, len(def.params))
	n := copy(bound, a.pos)
	rest := &args{named: a.named}
	explicitCaller := n == len(def.params) && slices.Contains(def.params, "caller")
	for i := n; i < len(def.params); i++ {
		bound[i] = rest.take(def.params[i])
		explicitCaller = explicitCaller || def.params[i] == "caller"
	}
	if def.caller >= 0 && !explicitCaller {
		c := rest.take("caller")
		if c == nil || c == Value(None) {
			c = &undefined{hint: "No caller defined"}
		}
		sc.set(def.caller, c)
	}
	if def.kwargs >= 0 {
		kw := NewDict(len(rest.named))
		for _, n := range rest.named {
			kw.Set(n.name, n.value)
		}
		sc.set(def.kwargs, kw)
	} else if len(rest.named) > 0 {
		return nil, fmt.Errorf("macro '%s' takes no keyword argument '%s'", def.name, rest.named[0].name)
	}
	if def.varargs >= 0 {
		sc.set(def.varargs, &Tuple{Items: a.pos[n:]})
	} else if len(a.pos) > n {
		return nil, fmt.Errorf("macro '%s' takes not more than %d arguments", def.name, len(def.params))
	}
	return bound, nil
}

// attr returns an attribute of a macro.
func (m *macro) attr(name string) (Value, bool) {
	switch name {
	case "name":
		if m.def.name == "" {
			return None, true
		}
		return m.def.name, true
	case "arguments":
		t := &Tuple{}
		for _, p := range m.def.params {
			t.Items = append(t.Items, p)
		}
		return t, true
	case "catch_kwargs":
		return m.def.kwargs >= 0, true
	case "catch_varargs":
		return m.def.varargs >= 0, true
	case "caller":
		return m.def.caller >= 0, true
	}
	return nil, false
}

// loopContext is the loop variable.
type loopContext struct {
	it         iterator
	size       int // -1 while it is not known
	index0     int
	depth0     int
	after      Value // the next value, if it was looked at
	current    Value
	before     Value
	last       []Value // the arguments of the last changed()
	changedSet bool
	recurse    func(st *state, v Value, depth0 int) (Value, error)
}

func newLoop(it iterator, size int) *loopContext {
	return &loopContext{it: it, size: size, index0: -1}
}

// advance moves to the next value.
func (l *loopContext) advance(st *state) (Value, bool, error) {
	v := l.after
	if l.after = nil; v == nil {
		var ok bool
		var err error
		if v, ok, err = st.next(l.it); err != nil || !ok {
			return nil, false, err
		}
	}
	l.index0++
	l.before, l.current = l.current, v
	return v, true, nil
}

// peek returns the next value without moving, nil at the end.
func (l *loopContext) peek(st *state) (Value, error) {
	if l.after == nil {
		v, ok, err := st.next(l.it)
		if err != nil || !ok {
			return nil, err
		}
		l.after = v
	}
	return l.after, nil
}

func (l *loopContext) length(st *state) (int, error) {
	if l.size < 0 {
		rest, err := st.drain(l.it)
		if err != nil {
			return 0, err
		}
		l.it = &sliceIterator{items: rest}
		l.size = len(rest) + l.index0 + 1
		if l.after != nil {
			l.size++
		}
	}
	return l.size, nil
}

func (l *loopContext) recur(st *state, v Value) (Value, error) {
	if l.recurse == nil {
		return nil, errors.New("the loop must have the 'recursive' marker to be called recursively")
	}
	return l.recurse(st, v, l.depth0+1)
}

// attr returns an attribute of the loop variable, nil when there is none.
func (l *loopContext) attr(st *state, name string) (Value, error) {
	switch name {
	case "index":
		return int64(l.index0 + 1), nil
	case "index0":
		return int64(l.index0), nil
	case "first":
		return l.index0 == 0, nil
	case "depth":
		return int64(l.depth0 + 1), nil
	case "depth0":
		return int64(l.depth0), nil
	case "last":
		v, err := l.peek(st)
		return v == nil, err
	case "length", "revindex", "revindex0":
		n, err := l.length(st)
		switch name {
		case "revindex":
			n -= l.index0
		case "revindex0":
			n -= l.index0 + 1
		}
		return int64(n), err
	case "previtem":
		if l.before == nil {
			return &undefined{hint: "there is no previous item"}, nil
		}
		return l.before, nil
	case "nextitem":
		v, err := l.peek(st)
		if v == nil {
			v = &undefined{hint: "there is no next item"}
		}
		return v, err
	case "cycle":
		return &function{"cycle", l.cycle}, nil
	case "changed":
		return &function{"changed", l.changed}, nil
	}
	return nil, nil
}

func (l *loopContext) cycle(_ *state, a *args) (Value, error) {
	if len(a.pos) == 0 || len(a.named) > 0 {
		return nil, errors.New("no items for cycling given")
	}
	return a.pos[l.index0%len(a.pos)], nil
}

func (l *loopContext) changed(st *state, a *args) (Value, error) {
	if l.changedSet {
		same, err := equalItems(st, l.last, a.pos, 0)
		if err != nil || same {
			return false, err
		}
	}
	l.last, l.changedSet = a.pos, true
	return true, nil
}
