package jinja

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// getAttr is v.name: Python's attributes and methods come before the keys of a
// mapping. What is not there is undefined.
func getAttr(st *state, v Value, name string) (Value, error) {
	if u, ok := v.(*undefined); ok {
		return nil, u.error()
	}
	if a, err := attribute(st, v, name); a != nil || err != nil {
		return a, err
	}
	if d, ok := v.(*Dict); ok {
		if item, ok := d.Get(name); ok {
			return item, st.scan(len(name))
		}
	}
	return &undefined{of: v, name: name}, nil
}

// getItem is v[key]: the keys of a mapping come before attributes.
func getItem(st *state, v, key Value) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	name, isText := text(key)
	switch x := v.(type) {
	case *undefined:
		return nil, x.error()
	case *Dict:
		if err := st.scan(len(name)); err != nil {
			return nil, err
		}
		item, ok, err := x.lookup(key)
		if err == nil && ok {
			return item, nil
		}
	default:
		if i, ok := isInt(key); ok {
			item, err := itemAt(st, v, i)
			if item != nil || err != nil {
				return item, err
			}
		}
	}
	if isText {
		if a, err := attribute(st, v, name); a != nil || err != nil {
			return a, err
		}
		return &undefined{of: v, name: name}, nil
	}
	name, err := repr(st, key)
	return &undefined{of: v, name: name}, err
}

// itemAt returns item i of a sequence, counted from the end when i is negative,
// or nil.
func itemAt(st *state, v Value, i int64) (Value, error) {
	n := 0
	var at func(int) Value
	switch x := v.(type) {
	case *List:
		n, at = len(x.Items), func(i int) Value { return x.Items[i] }
	case *Tuple:
		n, at = len(x.Items), func(i int) Value { return x.Items[i] }
	case rangeValue:
		n, at = x.len(), func(i int) Value { return x.start + int64(i)*x.step }
	case string, Markup:
		s, _ := text(v)
		count, err := runeCount(st, s)
		if err != nil {
			return nil, err
		}
		n, at = count, func(i int) Value {
			if n < len(s) {
				i = runeOffset(s, i)
			}
			_, size := utf8.DecodeRuneInString(s[i:])
			return likeText(v, s[i:i+size])
		}
	default:
		return nil, nil
	}
	if i < 0 {
		i += int64(n)
	}
	if i < 0 || i >= int64(n) {
		return nil, nil
	}
	return at(int(i)), nil
}

// attribute returns an attribute or method of v, or nil. What the sandbox
// refuses is undefined with a stronger error.
func attribute(st *state, v Value, name string) (Value, error) {
	if strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__") {
		if _, ok := v.(*namespace); !ok {
			return unsafe(v, name), nil
		}
	}
	switch x := v.(type) {
	case *Dict:
		return dictAttr(x, name), nil
	case string, Markup:
		if m, ok := stringMethods[name]; ok {
			return &function{name, func(st *state, a *args) (Value, error) { return callString(st, v, m, a) }}, nil
		}
	case *List:
		return listAttr(x, name), nil
	case *Tuple:
		return tupleAttr(x, name), nil
	case *namespace:
		a, _ := x.attrs.Get(name)
		return a, nil
	case *loopContext:
		return x.attr(st, name)
	case *macro:
		a, _ := x.attr(name)
		return a, nil
	case *cycler:
		return x.attr(name), nil
	case rangeValue:
		return rangeAttr(x, name), nil
	case float64:
		if name == "is_integer" {
			return &function{name, func(*state, *args) (Value, error) {
				return x == math.Trunc(x) && !math.IsInf(x, 0), nil
			}}, nil
		}
	}
	return nil, nil
}

// unsafe is the value of an attribute that the sandbox refuses.
func unsafe(v Value, name string) Value {
	return &undefined{of: v, name: name, err: fmt.Errorf("access to attribute '%s' of '%s' object is unsafe", name, typeName(v))}
}

func dictAttr(d *Dict, name string) Value {
	switch name {
	case "clear", "pop", "popitem", "setdefault", "update":
		return unsafe(d, name)
	case "keys", "values", "items":
		return &function{name, func(_ *state, a *args) (Value, error) {
			_, err := a.positional(name, 0, 0)
			return dictView{d, name}, err
		}}
	case "get":
		return &function{name, func(st *state, a *args) (Value, error) {
			v, err := a.positional(name, 1, 2)
			if err != nil {
				return nil, err
			}
			item, ok, err := d.lookup(v[0])
			switch {
			case err != nil:
				return nil, err
			case ok:
				return item, nil
			case v[1] == nil:
				return None, nil
			}
			return v[1], nil
		}}
	case "copy":
		return &function{name, func(st *state, a *args) (Value, error) {
			if _, err := a.positional(name, 0, 0); err != nil {
				return nil, err
			}
			return d.copy(), st.build(2 * valueBytes * d.Len())
		}}
	}
	return nil
}

func listAttr(l *List, name string) Value {
	switch name {
	case "append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove":
		return unsafe(l, name)
	case "copy":
		return &function{name, func(_ *state, a *args) (Value, error) {
			_, err := a.positional(name, 0, 0)
			return &List{Items: l.Items}, err
		}}
	case "count", "index":
		return sequenceMethod(name, l)
	}
	return nil
}

func tupleAttr(t *Tuple, name string) Value {
	switch name {
	case "count", "index":
		return sequenceMethod(name, t)
	case "grouper":
		if t.named {
			return t.Items[0]
		}
	case "list":
		if t.named {
			return t.Items[1]
		}
	}
	return nil
}

func rangeAttr(r rangeValue, name string) Value {
	switch name {
	case "start":
		return r.start
	case "stop":
		return r.stop
	case "step":
		return r.step
	case "count", "index":
		return sequenceMethod(name, r)
	}
	return nil
}

// sequenceMethod is the method count or index of a sequence.
func sequenceMethod(name string, sequence Value) Value {
	return &function{name, func(st *state, a *args) (Value, error) {
		v, err := a.positional(name, 1, 1)
		if err != nil {
			return nil, err
		}
		items, err := st.items(sequence)
		if err != nil {
			return nil, err
		}
		n := int64(0)
		for i, item := range items {
			same, err := equal(st, item, v[0])
			if err != nil {
				return nil, err
			}
			if same && name == "index" {
				return int64(i), nil
			}
			if same {
				n++
			}
		}
		if name == "index" {
			return nil, errors.New("the value is not in the list")
		}
		return n, nil
	}}
}

// sliceRange is a resolved slice: count items, from first, by apart, before end.
type sliceRange struct{ first, end, by, count int }

// sliceBounds resolves the bounds of v[start:stop:step] for a length n as Python
// does.
func sliceBounds(n int, start, stop, step Value) (sliceRange, error) {
	index := func(v Value, unset int64) (int64, error) {
		if v == nil || v == Value(None) {
			return unset, nil
		}
		if i, ok := isInt(v); ok {
			return i, nil
		}
		return 0, errors.New("slice indices must be integers or None")
	}
	s, err := index(step, 1)
	if err != nil {
		return sliceRange{}, err
	}
	if s == 0 {
		return sliceRange{}, errors.New("slice step cannot be zero")
	}
	size := int64(n)
	low, high := int64(0), size // where bounds are cut off
	lo, hi := low, high         // where missing bounds are
	if s < 0 {
		low, high = -1, size-1
		lo, hi = high, low
	}
	bound := func(v Value, unset int64) (int64, error) {
		i, err := index(v, math.MaxInt64)
		if err != nil {
			return 0, err
		}
		if v == nil || v == Value(None) {
			return unset, nil
		}
		if i < 0 {
			i += size
		}
		return min(max(i, low), high), nil
	}
	from, err := bound(start, lo)
	if err != nil {
		return sliceRange{}, err
	}
	to, err := bound(stop, hi)
	if err != nil {
		return sliceRange{}, err
	}
	s = min(max(s, -size-1), size+1) // one item then, as with any larger step
	return sliceRange{int(from), int(to), int(s), rangeValue{from, to, s}.len()}, nil
}

// slice is v[start:stop:step].
func slice(st *state, v, start, stop, step Value) (Value, error) {
	switch x := v.(type) {
	case *undefined:
		return nil, x.error()
	case string, Markup:
		s, _ := text(v)
		out, err := sliceText(st, s, start, stop, step)
		return likeText(v, out), err
	case *List:
		items, err := sliceItems(st, x.Items, start, stop, step)
		return &List{Items: items}, err
	case *Tuple:
		items, err := sliceItems(st, x.Items, start, stop, step)
		return &Tuple{Items: items}, err
	case rangeValue:
		r, err := sliceBounds(x.len(), start, stop, step)
		return rangeValue{x.start + int64(r.first)*x.step, x.start + int64(r.end)*x.step, int64(r.by) * x.step}, err
	}
	return nil, fmt.Errorf("'%s' object cannot be sliced", typeName(v))
}

func sliceItems(st *state, items []Value, start, stop, step Value) ([]Value, error) {
	r, err := sliceBounds(len(items), start, stop, step)
	if err != nil {
		return nil, err
	}
	if r.by == 1 {
		return items[r.first : r.first+r.count : r.first+r.count], nil // shared: lists do not change
	}
	if err := st.build(r.count * valueBytes); err != nil {
		return nil, err
	}
	out := make([]Value, r.count)
	for i := range out {
		out[i] = items[r.first+i*r.by]
	}
	return out, nil
}

func sliceText(st *state, s string, start, stop, step Value) (string, error) {
	n, err := runeCount(st, s)
	if err != nil {
		return "", err
	}
	r, err := sliceBounds(n, start, stop, step)
	switch {
	case err != nil || r.count == 0:
		return "", err
	case r.by == 1 && n == len(s):
		return s[r.first : r.first+r.count], nil
	case r.by == 1:
		s = s[runeOffset(s, r.first):]
		return s[:runeOffset(s, r.count)], nil
	}
	if err := st.build(4*n + len(s)); err != nil {
		return "", err
	}
	runes := []rune(s)
	out := make([]rune, r.count)
	for i := range out {
		out[i] = runes[r.first+i*r.by]
	}
	return string(out), nil
}
