package jinja

import (
	"errors"
	"fmt"
)

// filterMap makes a generator. As in Python, mistakes in the arguments come out
// when it is gone through, and not at all when v is empty.
func filterMap(_ *state, v Value, a *args) (Value, error) {
	f, err := mapFunc(a)
	return lazily(v, err, func(it iterator) iterator { return mapped(it, f) })
}

// mapFunc returns what map applies to each item: a filter, or the lookup of an
// attribute.
func mapFunc(a *args) (func(st *state, item Value) (Value, error), error) {
	if len(a.pos) > 0 {
		name, _ := text(a.pos[0])
		apply, ok := filters[name]
		if !ok {
			return nil, fmt.Errorf("no filter named '%s'", name)
		}
		rest := &args{pos: a.pos[1:], named: a.named}
		return func(st *state, item Value) (Value, error) { return apply(st, item, rest) }, nil
	}
	rest := &args{named: a.named}
	attribute, unset := rest.take("attribute"), rest.take("default")
	if attribute == nil {
		return nil, errors.New("map requires a filter argument")
	}
	if len(rest.named) > 0 {
		return nil, fmt.Errorf("map got an unexpected argument '%s'", rest.named[0].name)
	}
	by := parsePath(attribute)
	return func(st *state, item Value) (Value, error) { return by.get(st, item, unset) }, nil
}

// lazily makes a generator over v. What is wrong with it, err or that v cannot be
// iterated, fails when the generator is gone through; a v that is false is empty.
func lazily(v Value, err error, wrap func(iterator) iterator) (Value, error) {
	it, iterErr := iterate(v)
	if err == nil {
		err = iterErr
	}
	if err != nil {
		return newGenerator(v, iteratorFunc(func(st *state) (Value, bool, error) {
			ok, truthErr := truth(st, v)
			if truthErr != nil || !ok {
				return nil, false, truthErr
			}
			return nil, false, err
		}))
	}
	return newGenerator(v, wrap(it))
}

// selecting makes select, reject, selectattr and rejectattr: items for which a
// test, or their truth, is want.
func selecting(name string, byAttr, want bool) filter {
	return func(_ *state, v Value, a *args) (Value, error) {
		holds, err := selectFunc(name, byAttr, a)
		return lazily(v, err, func(it iterator) iterator {
			return filtered(it, func(st *state, item Value) (bool, error) {
				ok, err := holds(st, item)
				return ok == want, err
			})
		})
	}
}

// selectFunc returns the test of select and its kin.
func selectFunc(name string, byAttr bool, a *args) (func(st *state, item Value) (bool, error), error) {
	rest := &args{pos: a.pos, named: a.named}
	var by path
	if byAttr {
		if len(a.pos) == 0 {
			return nil, fmt.Errorf("%s misses the name of an attribute", name)
		}
		by, rest.pos = parsePath(a.pos[0]), a.pos[1:]
	}
	holds := func(st *state, v Value, _ *args) (bool, error) { return truth(st, v) }
	if len(rest.pos) > 0 {
		test, _ := text(rest.pos[0])
		f, ok := tests[test]
		if !ok {
			return nil, fmt.Errorf("no test named '%s'", test)
		}
		holds, rest.pos = f, rest.pos[1:]
	}
	return func(st *state, item Value) (bool, error) {
		item, err := by.get(st, item, nil)
		if err != nil {
			return false, err
		}
		return holds(st, item, rest)
	}, nil
}

func filterBatch(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("batch", 1, "linecount", "fill_with")
	if err != nil {
		return nil, err
	}
	size, err := needInt(p[0], 0)
	if err != nil {
		return nil, err
	}
	it, err := iterate(v)
	if err != nil {
		return nil, err
	}
	return newGenerator(v, iteratorFunc(func(st *state) (Value, bool, error) {
		var row []Value
		for len(row) == 0 || len(row) != size {
			item, ok, err := st.next(it)
			if err != nil {
				return nil, false, err
			}
			if !ok {
				break
			}
			if err := st.build(valueBytes); err != nil {
				return nil, false, err
			}
			row = append(row, item)
		}
		if len(row) == 0 {
			return nil, false, nil
		}
		if p[1] != nil && p[1] != Value(None) && len(row) < size {
			if size > 1<<24 {
				return nil, false, errBytes
			}
			if err := st.build((size - len(row)) * valueBytes); err != nil {
				return nil, false, err
			}
			for len(row) < size {
				row = append(row, p[1])
			}
		}
		return &List{Items: row}, true, nil
	}))
}

func filterSlice(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("slice", 1, "slices", "fill_with")
	if err != nil {
		return nil, err
	}
	n, err := needInt(p[0], 0)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errZero
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return newGenerator(nil, &sliceIterator{})
	}
	each, extra := len(items)/n, len(items)%n
	start, i := 0, 0
	return newGenerator(nil, iteratorFunc(func(st *state) (Value, bool, error) {
		if i >= n {
			return nil, false, nil
		}
		size := each
		if i < extra {
			size++
		}
		part := items[start : start+size : start+size]
		if i >= extra && p[1] != nil && p[1] != Value(None) {
			if err := st.build((size + 1) * valueBytes); err != nil {
				return nil, false, err
			}
			part = append(part, p[1])
		}
		start += size
		i++
		return &List{Items: part}, true, nil
	}))
}
