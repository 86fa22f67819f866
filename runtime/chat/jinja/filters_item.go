package jinja

import (
	"errors"
	"slices"
)

func filterAttr(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("attr", 1, "name")
	if err != nil {
		return nil, err
	}
	name, err := needText(p[0])
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.error()
	}
	found, err := attribute(st, v, name)
	if found == nil && err == nil {
		return &undefined{of: v, name: name}, nil
	}
	return found, err
}

func filterLength(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("length", 0); err != nil {
		return nil, err
	}
	n, err := length(st, v)
	return int64(n), err
}

func filterFirst(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("first", 0); err != nil {
		return nil, err
	}
	it, err := iterate(v)
	if err != nil {
		return nil, err
	}
	item, ok, err := st.next(it)
	if err == nil && !ok {
		return &undefined{hint: "no first item, sequence was empty"}, nil
	}
	return item, err
}

func filterLast(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("last", 0); err != nil {
		return nil, err
	}
	if _, ok := v.(*generator); ok {
		return nil, errors.New("'generator' object is not reversible")
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return &undefined{hint: "no last item, sequence was empty"}, nil
	}
	return items[len(items)-1], nil
}

func filterList(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("list", 0); err != nil {
		return nil, err
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	return &List{Items: items}, nil
}

func filterItems(_ *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("items", 0); err != nil {
		return nil, err
	}
	if _, ok := v.(*undefined); ok {
		return newGenerator(nil, &sliceIterator{})
	}
	d, ok := v.(*Dict)
	if !ok {
		// Python's filter is a generator: it fails when it is gone through.
		return newGenerator(nil, iteratorFunc(func(*state) (Value, bool, error) {
			return nil, false, errors.New("can only get item pairs from a mapping")
		}))
	}
	return newGenerator(nil, &indexIterator{n: d.Len(), at: dictView{d, "items"}.at})
}

func filterJoin(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("join", 0, "d", "attribute")
	if err != nil {
		return nil, err
	}
	sep := ""
	if p[0] != nil {
		if sep, err = str(st, p[0]); err != nil {
			return nil, err
		}
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if err := st.build(len(items) * valueBytes); err != nil {
		return nil, err
	}
	by := parsePath(p[1])
	parts := make([]string, len(items))
	for i, item := range items {
		if item, err = by.get(st, item, nil); err != nil {
			return nil, err
		}
		if parts[i], err = str(st, item); err != nil {
			return nil, err
		}
	}
	return joinTexts(st, parts, sep)
}

func filterReverse(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("reverse", 0); err != nil {
		return nil, err
	}
	if _, ok := text(v); ok {
		return slice(st, v, nil, nil, int64(-1))
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if _, ok := v.(*generator); ok {
		slices.Reverse(items) // drained into a slice of its own
		return &List{Items: items}, nil
	}
	n := len(items)
	return newGenerator(nil, &indexIterator{n: n, at: func(i int) Value { return items[n-1-i] }})
}
