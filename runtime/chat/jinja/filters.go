package jinja

import (
	"strings"
)

// filter is a function behind |: v is what is filtered.
type filter func(st *state, v Value, a *args) (Value, error)

// filters by name. It is filled in init because map, select and others refer to
// it.
var filters map[string]filter

func init() {
	filters = map[string]filter{
		"abs": filterAbs, "attr": filterAttr, "batch": filterBatch, "capitalize": textFilter(capitalize),
		"center": filterCenter, "count": filterLength, "d": filterDefault, "default": filterDefault,
		"dictsort": filterDictSort, "e": filterEscape, "escape": filterEscape, "first": filterFirst,
		"float": filterFloat, "forceescape": filterForceEscape, "format": filterFormat, "groupby": filterGroupBy,
		"indent": filterIndent, "int": filterInt, "items": filterItems, "join": filterJoin, "last": filterLast,
		"length": filterLength, "list": filterList, "lower": textFilter(toLower), "map": filterMap,
		"max": extreme("max", ">"), "min": extreme("min", "<"), "reject": selecting("reject", false, false),
		"rejectattr": selecting("rejectattr", true, false), "replace": filterReplace, "reverse": filterReverse,
		"round": filterRound, "safe": filterSafe, "select": selecting("select", false, true),
		"selectattr": selecting("selectattr", true, true), "slice": filterSlice, "sort": filterSort,
		"string": filterString, "striptags": filterStripTags, "sum": filterSum, "title": textFilter(titleWords),
		"tojson": filterToJSON, "trim": filterTrim, "truncate": filterTruncate, "unique": filterUnique,
		"upper": textFilter(toUpper), "urlencode": filterURLEncode, "wordcount": filterWordCount,
	}
}

// path is the attribute argument of map, sort and others: a name with dots, of
// which numbers are indexes.
type path []Value

func parsePath(v Value) path {
	s, ok := text(v)
	if v == nil || v == Value(None) {
		return nil
	}
	if !ok {
		return path{v}
	}
	var p path
	for part := range strings.SplitSeq(s, ".") {
		if i, ok := parseIndex(part); ok && part != "" {
			p = append(p, i)
		} else {
			p = append(p, part)
		}
	}
	return p
}

// get follows the path from v. Undefined steps take the value unset, if it is
// not nil.
func (p path) get(st *state, v, unset Value) (Value, error) {
	for _, part := range p {
		var err error
		if v, err = getItem(st, v, part); err != nil {
			return nil, err
		}
		if _, ok := v.(*undefined); ok && unset != nil && unset != Value(None) {
			v = unset
		}
	}
	return v, nil
}

// ignoreCase lowers text for comparing.
func ignoreCase(st *state, v Value) (Value, error) {
	s, ok := text(v)
	if !ok {
		return v, nil
	}
	return toLower(s), st.build(len(s))
}

// key returns the value to sort, group or compare by.
func (p path) key(st *state, v, unset Value, caseSensitive bool) (Value, error) {
	v, err := p.get(st, v, unset)
	if err != nil || caseSensitive {
		return v, err
	}
	return ignoreCase(st, v)
}
