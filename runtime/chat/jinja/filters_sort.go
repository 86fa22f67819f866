package jinja

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

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
