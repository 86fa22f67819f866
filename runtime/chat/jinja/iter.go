package jinja

import (
	"fmt"
	"unicode/utf8"
)

// iterator yields values one by one: ok is false at the end.
type iterator interface {
	next(st *state) (v Value, ok bool, err error)
}

var (
	_ iterator = (*sliceIterator)(nil)
	_ iterator = (*stringIterator)(nil)
	_ iterator = (*indexIterator)(nil)
	_ iterator = iteratorFunc(nil)
)

// generator is an iterator as a value. As in Python it can be gone through only
// once. depth counts the generators below it.
type generator struct {
	iterator
	depth int
}

// newGenerator makes a generator that draws from source. A template can put
// generator upon generator; the depth is bounded because each is a Go call.
func newGenerator(source Value, it iterator) (Value, error) {
	g := &generator{iterator: it}
	if s, ok := source.(*generator); ok {
		g.depth = s.depth + 1
	}
	if g.depth > maxNesting {
		return nil, errNesting
	}
	return g, nil
}

// sliceIterator yields the items of a list or tuple.
type sliceIterator struct {
	items []Value
	i     int
}

func (it *sliceIterator) next(*state) (Value, bool, error) {
	if it.i >= len(it.items) {
		return nil, false, nil
	}
	it.i++
	return it.items[it.i-1], true, nil
}

// stringIterator yields the characters of a string.
type stringIterator struct{ rest string }

func (it *stringIterator) next(*state) (Value, bool, error) {
	if it.rest == "" {
		return nil, false, nil
	}
	_, n := utf8.DecodeRuneInString(it.rest)
	c := it.rest[:n]
	it.rest = it.rest[n:]
	return c, true, nil
}

// indexIterator yields at(0) to at(n-1).
type indexIterator struct {
	i, n int
	at   func(int) Value
}

func (it *indexIterator) next(*state) (Value, bool, error) {
	if it.i >= it.n {
		return nil, false, nil
	}
	it.i++
	return it.at(it.i - 1), true, nil
}

// iteratorFunc is a function as an iterator.
type iteratorFunc func(st *state) (Value, bool, error)

func (f iteratorFunc) next(st *state) (Value, bool, error) { return f(st) }

// iterate is Python's iter(). Every value of the iterator counts as a step.
func iterate(v Value) (iterator, error) {
	switch v := v.(type) {
	case *List:
		return &sliceIterator{items: v.Items}, nil
	case *Tuple:
		return &sliceIterator{items: v.Items}, nil
	case *Dict:
		return &sliceIterator{items: v.keys}, nil
	case string:
		return &stringIterator{rest: v}, nil
	case Markup:
		return &stringIterator{rest: string(v)}, nil
	case *undefined:
		return &sliceIterator{}, nil
	case rangeValue:
		return &indexIterator{n: v.len(), at: func(i int) Value { return v.start + int64(i)*v.step }}, nil
	case dictView:
		return &indexIterator{n: v.dict.Len(), at: v.at}, nil
	case *generator:
		return v, nil
	}
	return nil, fmt.Errorf("'%s' object is not iterable", typeName(v))
}

// next advances an iterator, counting a step.
func (st *state) next(it iterator) (Value, bool, error) {
	if err := st.step(); err != nil {
		return nil, false, err
	}
	return it.next(st)
}

// items returns all values that v yields. The slice may be v's own.
func (st *state) items(v Value) ([]Value, error) {
	switch v := v.(type) {
	case *List:
		return v.Items, st.scan(len(v.Items))
	case *Tuple:
		return v.Items, st.scan(len(v.Items))
	case *Dict:
		return v.keys, st.scan(len(v.keys))
	}
	it, err := iterate(v)
	if err != nil {
		return nil, err
	}
	return st.drain(it)
}

// drain returns all values of an iterator.
func (st *state) drain(it iterator) ([]Value, error) {
	var items []Value
	for {
		v, ok, err := st.next(it)
		if err != nil || !ok {
			return items, err
		}
		if err := st.build(valueBytes); err != nil {
			return nil, err
		}
		items = append(items, v)
	}
}

// mapped yields f of the values of it.
func mapped(it iterator, f func(st *state, v Value) (Value, error)) iterator {
	return iteratorFunc(func(st *state) (Value, bool, error) {
		v, ok, err := st.next(it)
		if err != nil || !ok {
			return nil, false, err
		}
		v, err = f(st, v)
		return v, err == nil, err
	})
}

// filtered yields the values of it for which keep holds.
func filtered(it iterator, keep func(st *state, v Value) (bool, error)) iterator {
	return iteratorFunc(func(st *state) (Value, bool, error) {
		for {
			v, ok, err := st.next(it)
			if err != nil || !ok {
				return nil, false, err
			}
			if ok, err = keep(st, v); err != nil {
				return nil, false, err
			}
			if ok {
				return v, true, nil
			}
		}
	})
}
