package jinja

import (
	"errors"
	"fmt"
	"math/big"
)

// Value is a value of the template language, one of:
//
//	NoneType                          None
//	bool, int64, *big.Int, float64    numbers
//	string, Markup                    text, indexed by code point
//	*List, *Tuple, *Dict              containers
//
// or one of the package's own types (undefined values, functions, iterators).
// A nil Value is none of these; inside the package it means "not given".
type Value = any

// NoneType is the type of None.
type NoneType struct{}

// None is the null of JSON.
var None = NoneType{}

// Markup is text that the safe and escape filters mark: what is added to it is
// escaped for HTML.
type Markup string

// List is a list. It must not be changed once a template can see it.
type List struct{ Items []Value }

// Tuple is a tuple.
type Tuple struct {
	Items []Value
	// named: the items are also attributes grouper and list.
	named bool
}

// undefined is the value of what does not exist. It prints as nothing, is false
// and empty, and fails in any other use.
type undefined struct {
	hint string // the whole message, or
	of   Value  // the value that was looked into, nil for a variable,
	name string // and what was looked for
	err  error  // a stronger error, such as an attribute the sandbox refuses
}

func (u *undefined) error() error {
	switch {
	case u.err != nil:
		return u.err
	case u.hint != "":
		return errors.New(u.hint)
	case u.of == nil:
		return fmt.Errorf("'%s' is undefined", u.name)
	}
	if _, ok := u.of.(NoneType); ok {
		return fmt.Errorf("'None' has no attribute '%s'", u.name)
	}
	return fmt.Errorf("'%s object' has no attribute '%s'", typeName(u.of), u.name)
}

// namespace is the value of namespace(): the only thing that a template can
// change.
type namespace struct{ attrs *Dict }

// rangeValue is the value of range().
type rangeValue struct{ start, stop, step int64 }

func (r rangeValue) len() int {
	switch {
	case r.step > 0 && r.start < r.stop:
		return int((r.stop-r.start-1)/r.step) + 1
	case r.step < 0 && r.start > r.stop:
		return int((r.start-r.stop-1)/-r.step) + 1
	}
	return 0
}

// dictView is the value of dict.keys(), values() and items().
type dictView struct {
	dict *Dict
	kind string // "keys", "values" or "items"
}

func (v dictView) at(i int) Value {
	switch v.kind {
	case "keys":
		return v.dict.keys[i]
	case "values":
		return v.dict.values[i]
	}
	return &Tuple{Items: []Value{v.dict.keys[i], v.dict.values[i]}}
}

// function is a callable of the package: a global, a method or a Func.
type function struct {
	name string
	call func(st *state, a *args) (Value, error)
}

// Func makes a callable value with named parameters, all of which a caller has
// to give, by position or by name. An error of f ends the render; errors.As
// finds it in the error of Render.
func Func(name string, params []string, f func(args []Value) (Value, error)) Value {
	return &function{name: name, call: func(_ *state, a *args) (Value, error) {
		v, err := a.bind(name, len(params), params...)
		if err != nil {
			return nil, err
		}
		return f(v)
	}}
}

// typeName is Python's name of a value's type, for error messages.
func typeName(v Value) string {
	switch v := v.(type) {
	case NoneType:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case Markup:
		return "Markup"
	case *List:
		return "list"
	case *Tuple:
		return "tuple"
	case *Dict:
		return "dict"
	case *undefined:
		return "Undefined"
	case *namespace:
		return "Namespace"
	case rangeValue:
		return "range"
	case dictView:
		return "dict_" + v.kind
	case *generator:
		return "generator"
	case *macro:
		return "Macro"
	case *loopContext:
		return "LoopContext"
	}
	return "function"
}

// text returns the characters of a string or Markup.
func text(v Value) (string, bool) {
	switch s := v.(type) {
	case string:
		return s, true
	case Markup:
		return string(s), true
	}
	return "", false
}

// truth is Python's bool().
func truth(st *state, v Value) (bool, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case NoneType, *undefined:
		return false, nil
	case int64:
		return v != 0, nil
	case float64:
		return v != 0, nil
	case string:
		return v != "", nil
	case Markup:
		return v != "", nil
	case *List:
		return len(v.Items) > 0, nil
	case *Tuple:
		return len(v.Items) > 0, nil
	case *Dict:
		return v.Len() > 0, nil
	case rangeValue:
		return v.len() > 0, nil
	case dictView:
		return v.dict.Len() > 0, nil
	case *loopContext:
		n, err := v.length(st)
		return n > 0, err
	}
	return true, nil
}

// length is Python's len().
func length(st *state, v Value) (int, error) {
	switch v := v.(type) {
	case *undefined:
		return 0, nil
	case string:
		return runeCount(st, v)
	case Markup:
		return runeCount(st, string(v))
	case *List:
		return len(v.Items), nil
	case *Tuple:
		return len(v.Items), nil
	case *Dict:
		return v.Len(), nil
	case rangeValue:
		return v.len(), nil
	case dictView:
		return v.dict.Len(), nil
	case *loopContext:
		return v.length(st)
	}
	return 0, fmt.Errorf("object of type '%s' has no len()", typeName(v))
}

// isInt returns the value of an integer or, as Python has it, of a bool.
func isInt(v Value) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case bool:
		if n {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// isNumber returns the value of an integer, bool or float.
func isNumber(v Value) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case *big.Int:
		f, _ := new(big.Float).SetInt(n).Float64()
		return f, true
	}
	n, ok := isInt(v)
	return float64(n), ok
}
