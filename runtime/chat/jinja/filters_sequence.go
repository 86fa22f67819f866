package jinja

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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

// keyed is an item with what it is sorted by.
type keyed struct {
	key, item Value
}

// sortKeyed sorts stably, equal items keeping their order also in reverse.
func sortKeyed(st *state, items []keyed, reverse bool) error {
	var failed error
	slices.SortStableFunc(items, func(a, b keyed) int {
		if failed != nil {
			return 0
		}
		c, err := order(st, "<", a.key, b.key)
		if err != nil {
			failed = err
		}
		if c == unordered {
			c = 0
		}
		if reverse {
			c = -c
		}
		return c
	})
	return failed
}

// sorted returns the items of v sorted by key.
func sorted(st *state, v Value, reverse bool, key func(Value) (Value, error)) ([]keyed, error) {
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if err := st.build(len(items) * 2 * valueBytes); err != nil {
		return nil, err
	}
	out := make([]keyed, len(items))
	for i, item := range items {
		k, err := key(item)
		if err != nil {
			return nil, err
		}
		out[i] = keyed{k, item}
	}
	return out, sortKeyed(st, out, reverse)
}

func plainItems(sorted []keyed) Value {
	l := &List{Items: make([]Value, len(sorted))}
	for i, k := range sorted {
		l.Items[i] = k.item
	}
	return l
}

func filterSort(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("sort", 0, "reverse", "case_sensitive", "attribute")
	if err != nil {
		return nil, err
	}
	reverse, err := flag(st, p[0], false)
	if err != nil {
		return nil, err
	}
	sensitive, err := flag(st, p[1], false)
	if err != nil {
		return nil, err
	}
	by := []path{parsePath(p[2])}
	if s, ok := text(p[2]); ok {
		by = nil
		for part := range strings.SplitSeq(s, ",") {
			by = append(by, parsePath(part))
		}
	}
	out, err := sorted(st, v, reverse, func(item Value) (Value, error) {
		keys := make([]Value, len(by))
		for i, p := range by {
			if keys[i], err = p.key(st, item, nil, sensitive); err != nil {
				return nil, err
			}
		}
		return &List{Items: keys}, st.build(len(keys) * valueBytes)
	})
	if err != nil {
		return nil, err
	}
	return plainItems(out), nil
}

func filterDictSort(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("dictsort", 0, "case_sensitive", "by", "reverse")
	if err != nil {
		return nil, err
	}
	sensitive, err := flag(st, p[0], false)
	if err != nil {
		return nil, err
	}
	reverse, err := flag(st, p[2], false)
	if err != nil {
		return nil, err
	}
	place := path{int64(0)}
	switch p[1] {
	case nil, Value("key"):
	case Value("value"):
		place = path{int64(1)}
	default:
		return nil, errors.New("dictsort sorts by 'key' or 'value'")
	}
	d, ok := v.(*Dict)
	if !ok {
		if u, ok := v.(*undefined); ok {
			return nil, u.error()
		}
		return nil, fmt.Errorf("dictsort needs a mapping, not %s", typeName(v))
	}
	out, err := sorted(st, dictView{d, "items"}, reverse, func(item Value) (Value, error) {
		return place.key(st, item, nil, sensitive)
	})
	if err != nil {
		return nil, err
	}
	return plainItems(out), nil
}

func filterUnique(_ *state, v Value, a *args) (Value, error) {
	p, err := a.bind("unique", 0, "case_sensitive", "attribute")
	if err != nil {
		return nil, err
	}
	it, err := iterate(v)
	if err != nil {
		it = iteratorFunc(func(*state) (Value, bool, error) { return nil, false, err })
	}
	by := parsePath(p[1])
	seen := map[any]bool{}
	return newGenerator(v, filtered(it, func(st *state, item Value) (bool, error) {
		sensitive, err := flag(st, p[0], false)
		if err != nil {
			return false, err
		}
		key, err := by.key(st, item, nil, sensitive)
		if err != nil {
			return false, err
		}
		h, err := hashable(key, 0)
		if err != nil || seen[h] {
			return false, err
		}
		seen[h] = true
		return true, st.build(8 * valueBytes) // about what an entry of a map takes
	}))
}

// extreme makes min and max: op says that an item replaces the best so far.
func extreme(name, op string) filter {
	return func(st *state, v Value, a *args) (Value, error) {
		p, err := a.bind(name, 0, "case_sensitive", "attribute")
		if err != nil {
			return nil, err
		}
		sensitive, err := flag(st, p[0], false)
		if err != nil {
			return nil, err
		}
		items, err := st.items(v)
		if err != nil {
			return nil, err
		}
		if len(items) == 0 {
			return &undefined{hint: "no aggregated item, sequence was empty"}, nil
		}
		by := parsePath(p[1])
		var best, bestKey Value
		for _, item := range items {
			key, err := by.key(st, item, nil, sensitive)
			if err != nil {
				return nil, err
			}
			better := best == nil
			if !better {
				if better, err = compare(st, op, key, bestKey); err != nil {
					return nil, err
				}
			}
			if better {
				best, bestKey = item, key
			}
		}
		return best, nil
	}
}

func filterGroupBy(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("groupby", 1, "attribute", "default", "case_sensitive")
	if err != nil {
		return nil, err
	}
	sensitive, err := flag(st, p[2], false)
	if err != nil {
		return nil, err
	}
	by := parsePath(p[0])
	out, err := sorted(st, v, false, func(item Value) (Value, error) { return by.key(st, item, p[1], sensitive) })
	if err != nil {
		return nil, err
	}
	groups := &List{}
	for i := 0; i < len(out); {
		members := &List{}
		j := i
		for ; j < len(out); j++ {
			same, err := equal(st, out[i].key, out[j].key)
			if err != nil {
				return nil, err
			}
			if !same && j > i {
				break
			}
			members.Items = append(members.Items, out[j].item)
		}
		name, err := by.get(st, out[i].item, p[1])
		if err != nil {
			return nil, err
		}
		if err := st.build((len(members.Items) + 4) * valueBytes); err != nil {
			return nil, err
		}
		groups.Items = append(groups.Items, &Tuple{Items: []Value{name, members}, named: true})
		i = j
	}
	return groups, nil
}

func filterSum(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("sum", 0, "attribute", "start")
	if err != nil {
		return nil, err
	}
	total := p[1]
	if total == nil {
		total = int64(0)
	}
	if _, ok := text(total); ok {
		return nil, errors.New("sum cannot add strings; use join")
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	by := parsePath(p[0])
	for _, item := range items {
		if item, err = by.get(st, item, nil); err != nil {
			return nil, err
		}
		if total, err = binary(st, "+", total, item); err != nil {
			return nil, err
		}
	}
	return total, nil
}
