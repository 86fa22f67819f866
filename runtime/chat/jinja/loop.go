package jinja

import (
	"errors"
)

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
