package jinja

import (
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
