package jinja

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// stringMethod is a method of Python's str. Markup results of marked receivers
// are made by callString.
type stringMethod struct {
	name        string
	least, most int      // positional arguments
	params      []string // names, where Python has them
	call        func(st *state, s string, a []Value) (Value, error)
}

// stringMethods by name. It is filled in init because format refers to
// attributes, which refer to it.
var stringMethods map[string]*stringMethod

func init() {
	stringMethods = map[string]*stringMethod{}
	for _, m := range []*stringMethod{
		{"capitalize", 0, 0, nil, textOf(capitalize)},
		{"casefold", 0, 0, nil, textOf(caseFold)},
		{"lower", 0, 0, nil, textOf(toLower)},
		{"swapcase", 0, 0, nil, textOf(swapCase)},
		{"title", 0, 0, nil, textOf(titleCase)},
		{"upper", 0, 0, nil, textOf(toUpper)},
		{"isalnum", 0, 0, nil, boolOf(func(s string) bool {
			return allRunes(s, func(r rune) bool { return unicode.IsLetter(r) || isNumeric(r) })
		})},
		{"isalpha", 0, 0, nil, boolOf(func(s string) bool { return allRunes(s, unicode.IsLetter) })},
		{"isascii", 0, 0, nil, boolOf(isASCII)},
		{"isdecimal", 0, 0, nil, boolOf(func(s string) bool { return allRunes(s, unicode.IsDigit) })},
		{"isdigit", 0, 0, nil, boolOf(func(s string) bool { return allRunes(s, isDigit) })},
		{"isidentifier", 0, 0, nil, boolOf(func(s string) bool {
			r, _ := utf8.DecodeRuneInString(s)
			return !unicode.IsDigit(r) && allRunes(s, isNameRune)
		})},
		{"islower", 0, 0, nil, boolOf(func(s string) bool { return hasCase(s, isLower, isUpper) })},
		{"isnumeric", 0, 0, nil, boolOf(func(s string) bool { return allRunes(s, isNumeric) })},
		{"isprintable", 0, 0, nil, boolOf(func(s string) bool { return s == "" || allRunes(s, unicode.IsPrint) })},
		{"isspace", 0, 0, nil, boolOf(func(s string) bool { return allRunes(s, isSpace) })},
		{"istitle", 0, 0, nil, boolOf(isTitled)},
		{"isupper", 0, 0, nil, boolOf(func(s string) bool { return hasCase(s, isUpper, isLower) })},
		{"strip", 0, 1, nil, strip(strings.TrimFunc)},
		{"lstrip", 0, 1, nil, strip(strings.TrimLeftFunc)},
		{"rstrip", 0, 1, nil, strip(strings.TrimRightFunc)},
		{"startswith", 1, 3, nil, affix(strings.HasPrefix)},
		{"endswith", 1, 3, nil, affix(strings.HasSuffix)},
		{"removeprefix", 1, 1, nil, cut(strings.TrimPrefix)},
		{"removesuffix", 1, 1, nil, cut(strings.TrimSuffix)},
		{"find", 1, 3, nil, find(strings.Index, false)},
		{"index", 1, 3, nil, find(strings.Index, true)},
		{"rfind", 1, 3, nil, find(strings.LastIndex, false)},
		{"rindex", 1, 3, nil, find(strings.LastIndex, true)},
		{"count", 1, 3, nil, count},
		{"join", 1, 1, nil, joinMethod},
		{"replace", 2, 3, nil, replaceMethod},
		{"split", 0, 2, []string{"sep", "maxsplit"}, split},
		{"rsplit", 0, 2, []string{"sep", "maxsplit"}, rsplit},
		{"splitlines", 0, 1, []string{"keepends"}, splitlines},
		{"partition", 1, 1, nil, partition},
		{"rpartition", 1, 1, nil, rpartition},
		{"center", 1, 2, nil, justify(centerLeft)},
		{"ljust", 1, 2, nil, justify(func(int, int) int { return 0 })},
		{"rjust", 1, 2, nil, justify(func(n int, _ int) int { return n })},
		{"zfill", 1, 1, nil, zfill},
		{"expandtabs", 0, 1, []string{"tabsize"}, expandTabs},
		{"format", 0, math.MaxInt, nil, nil}, // callString
		{"format_map", 1, 1, nil, formatMap},
	} {
		stringMethods[m.name] = m
	}
}

// callString calls a string method. The methods of marked text return marked
// text.
func callString(st *state, self Value, m *stringMethod, a *args) (Value, error) {
	s, _ := text(self)
	if err := st.scan(len(s)); err != nil {
		return nil, err
	}
	if m.name == "format" {
		return formatMethod(st, s, a)
	}
	var v []Value
	var err error
	if m.params != nil {
		v, err = a.bind(m.name, m.least, m.params...)
	} else {
		v, err = a.positional(m.name, m.least, m.most)
	}
	if err != nil {
		return nil, err
	}
	r, err := m.call(st, s, v)
	if _, marked := self.(Markup); marked && err == nil {
		r = mark(r)
	}
	return r, err
}

// mark marks the texts of a method's result.
func mark(v Value) Value {
	switch r := v.(type) {
	case string:
		return Markup(r)
	case *List:
		return &List{Items: markAll(r.Items)}
	case *Tuple:
		return &Tuple{Items: markAll(r.Items)}
	}
	return v
}

func markAll(items []Value) []Value {
	out := make([]Value, len(items))
	for i, v := range items {
		out[i] = mark(v)
	}
	return out
}

// textOf makes a method of a function that returns text of about the same size.
func textOf(f func(string) string) func(*state, string, []Value) (Value, error) {
	return func(st *state, s string, _ []Value) (Value, error) {
		if err := st.build(len(s)); err != nil {
			return nil, err
		}
		return f(s), nil
	}
}

func boolOf(f func(string) bool) func(*state, string, []Value) (Value, error) {
	return func(_ *state, s string, _ []Value) (Value, error) { return f(s), nil }
}

// isDigit is str.isdigit() of a character: decimal digits, superscripts and the
// like.
func isDigit(r rune) bool {
	return unicode.IsDigit(r) || r == '²' || r == '³' || r == '¹' || r == '⁰' || r >= '⁴' && r <= '⁹' || r >= '₀' && r <= '₉' ||
		r >= '①' && r <= '⑨'
}

// isNumeric is str.isnumeric() of a character: Unicode's number categories and
// the common ideographs for numbers.
func isNumeric(r rune) bool {
	return unicode.IsNumber(r) || strings.ContainsRune("〇一二三四五六七八九十百千万億兆零", r)
}

// optionalText checks an argument that is text or None.
func optionalText(v Value) error {
	if v == nil || v == Value(None) {
		return nil
	}
	if _, ok := text(v); !ok {
		return fmt.Errorf("a string or None is expected, not %s", typeName(v))
	}
	return nil
}

// needText returns an argument that has to be text.
func needText(v Value) (string, error) {
	s, ok := text(v)
	if !ok {
		return "", fmt.Errorf("a string is expected, not '%s'", typeName(v))
	}
	return s, nil
}

// needInt returns an argument that has to be an integer, unset when not given.
func needInt(v Value, unset int) (int, error) {
	if v == nil {
		return unset, nil
	}
	n, ok := isInt(v)
	if !ok {
		return 0, fmt.Errorf("'%s' object cannot be interpreted as an integer", typeName(v))
	}
	return int(n), nil
}

func strip(trim func(string, func(rune) bool) string) func(*state, string, []Value) (Value, error) {
	return func(_ *state, s string, a []Value) (Value, error) {
		if err := optionalText(a[0]); err != nil {
			return nil, err
		}
		return trim(s, stripSet(a[0])), nil
	}
}
