package jinja

import (
	"errors"
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

var stringMethods map[string]*stringMethod

// methodTable is filled in init because format refers to attributes, which
// refer to the table.
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
		{"islower", 0, 0, nil, boolOf(func(s string) bool { return hasCase(s, unicode.IsLower, unicode.IsUpper) })},
		{"isnumeric", 0, 0, nil, boolOf(func(s string) bool { return allRunes(s, isNumeric) })},
		{"isprintable", 0, 0, nil, boolOf(func(s string) bool { return s == "" || allRunes(s, unicode.IsPrint) })},
		{"isspace", 0, 0, nil, boolOf(func(s string) bool { return allRunes(s, isSpace) })},
		{"istitle", 0, 0, nil, boolOf(isTitled)},
		{"isupper", 0, 0, nil, boolOf(func(s string) bool { return hasCase(s, unicode.IsUpper, unicode.IsLower) })},
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

// part returns s[start:end] for the optional bounds of find, count, startswith
// and so on, and the code points before it; ok is false when start lies behind
// the end, where even the empty string is not found.
func part(st *state, s string, a []Value) (sub string, before int, ok bool, err error) {
	if a[0] == nil && a[1] == nil {
		return s, 0, true, nil
	}
	n, err := runeCount(st, s)
	if err != nil {
		return "", 0, false, err
	}
	r, err := sliceBounds(n, a[0], a[1], nil)
	if err != nil {
		return "", 0, false, err
	}
	if i, isSet := isInt(a[0]); isSet && i > int64(n) {
		return "", 0, false, nil
	}
	if end, isSet := isInt(a[1]); isSet {
		if end < 0 {
			end += int64(n)
		}
		if int64(r.first) > max(end, 0) {
			return "", 0, false, nil
		}
	}
	s = s[runeOffset(s, r.first):]
	return s[:runeOffset(s, r.count)], r.first, true, nil
}

func affix(has func(s, part string) bool) func(*state, string, []Value) (Value, error) {
	return func(st *state, s string, a []Value) (Value, error) {
		s, _, ok, err := part(st, s, a[1:])
		if err != nil {
			return nil, err
		}
		choices := []Value{a[0]}
		if t, isTuple := a[0].(*Tuple); isTuple {
			choices = t.Items
		}
		for _, c := range choices {
			p, err := needText(c)
			if err != nil {
				return nil, err
			}
			if ok && has(s, p) {
				return true, nil
			}
		}
		return false, st.scan(len(choices))
	}
}

func cut(trim func(s, part string) string) func(*state, string, []Value) (Value, error) {
	return func(_ *state, s string, a []Value) (Value, error) {
		p, err := needText(a[0])
		return trim(s, p), err
	}
}

func find(index func(s, sub string) int, must bool) func(*state, string, []Value) (Value, error) {
	return func(st *state, s string, a []Value) (Value, error) {
		sub, err := needText(a[0])
		if err != nil {
			return nil, err
		}
		s, before, ok, err := part(st, s, a[1:])
		if err != nil {
			return nil, err
		}
		i := -1
		if ok {
			i = index(s, sub)
		}
		switch {
		case i >= 0:
			return int64(before + utf8.RuneCountInString(s[:i])), nil
		case must:
			return nil, errors.New("substring not found")
		}
		return int64(-1), nil
	}
}

func count(st *state, s string, a []Value) (Value, error) {
	sub, err := needText(a[0])
	if err != nil {
		return nil, err
	}
	s, _, ok, err := part(st, s, a[1:])
	if err != nil || !ok {
		return int64(0), err
	}
	return int64(strings.Count(s, sub)), nil
}

func joinMethod(st *state, sep string, a []Value) (Value, error) {
	items, err := st.items(a[0])
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(items))
	for i, v := range items {
		s, ok := text(v)
		if !ok {
			return nil, fmt.Errorf("sequence item %d: expected str instance, %s found", i, typeName(v))
		}
		texts[i] = s
	}
	return joinTexts(st, texts, sep)
}

// joinTexts counts the result before it is made.
func joinTexts(st *state, texts []string, sep string) (Value, error) {
	n := 0
	for _, s := range texts {
		if n += len(s) + len(sep); n > st.limits.Bytes {
			return nil, errBytes
		}
	}
	if err := st.build(n); err != nil {
		return nil, err
	}
	return strings.Join(texts, sep), nil
}

func replaceMethod(st *state, s string, a []Value) (Value, error) {
	from, err := needText(a[0])
	if err != nil {
		return nil, err
	}
	to, err := needText(a[1])
	if err != nil {
		return nil, err
	}
	n, err := needInt(a[2], -1)
	if err != nil {
		return nil, err
	}
	return replaceText(st, s, from, to, n)
}

// replaceText replaces the first n occurrences, all when n is negative. It
// counts the result before it is made.
func replaceText(st *state, s, from, to string, n int) (Value, error) {
	found := strings.Count(s, from)
	if n >= 0 {
		found = min(found, n)
	}
	if found == 0 {
		return s, st.scan(len(s))
	}
	if len(to) > 0 && found > math.MaxInt32/len(to) {
		return nil, errBytes
	}
	if err := st.build(len(s) + found*len(to)); err != nil {
		return nil, err
	}
	return strings.Replace(s, from, to, found), nil
}

// texts makes a list of strings.
func texts(st *state, parts []string) (Value, error) {
	if err := st.build(len(parts) * 2 * valueBytes); err != nil {
		return nil, err
	}
	items := make([]Value, len(parts))
	for i, p := range parts {
		items[i] = p
	}
	return &List{Items: items}, nil
}

// splitArgs checks the arguments of split and rsplit; sep is "" for white space.
func splitArgs(a []Value) (sep string, limit int, err error) {
	if err = optionalText(a[0]); err != nil {
		return "", 0, err
	}
	sep, given := text(a[0])
	if given && sep == "" {
		return "", 0, errors.New("empty separator")
	}
	limit, err = needInt(a[1], -1)
	return sep, limit, err
}

func split(st *state, s string, a []Value) (Value, error) {
	sep, limit, err := splitArgs(a)
	if err != nil {
		return nil, err
	}
	if sep != "" {
		if limit >= 0 && limit < math.MaxInt32 {
			return texts(st, strings.SplitN(s, sep, limit+1))
		}
		return texts(st, strings.Split(s, sep))
	}
	var parts []string
	for s = strings.TrimLeftFunc(s, isSpace); s != ""; s = strings.TrimLeftFunc(s, isSpace) {
		i := strings.IndexFunc(s, isSpace)
		if i < 0 || limit >= 0 && len(parts) == limit {
			i = len(s)
		}
		parts = append(parts, s[:i])
		s = s[i:]
	}
	return texts(st, parts)
}

func rsplit(st *state, s string, a []Value) (Value, error) {
	sep, limit, err := splitArgs(a)
	if err != nil {
		return nil, err
	}
	if limit < 0 {
		return split(st, s, a)
	}
	var parts []string // the last first
	if sep != "" {
		for len(parts) < limit {
			i := strings.LastIndex(s, sep)
			if i < 0 {
				break
			}
			parts = append(parts, s[i+len(sep):])
			s = s[:i]
		}
		parts = append(parts, s)
	} else {
		for s = strings.TrimRightFunc(s, isSpace); s != ""; s = strings.TrimRightFunc(s, isSpace) {
			i := strings.LastIndexFunc(s, isSpace)
			if i >= 0 && len(parts) < limit {
				_, n := utf8.DecodeRuneInString(s[i:])
				i += n
			} else {
				i = 0
			}
			parts = append(parts, s[i:])
			s = s[:i]
		}
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return texts(st, parts)
}

func splitlines(st *state, s string, a []Value) (Value, error) {
	keep := false
	if a[0] != nil {
		n, err := needInt(a[0], 0)
		if err != nil {
			return nil, err
		}
		keep = n != 0
	}
	return texts(st, splitLines(s, keep))
}

func partition(_ *state, s string, a []Value) (Value, error) {
	sep, err := needText(a[0])
	if err == nil && sep == "" {
		err = errors.New("empty separator")
	}
	if err != nil {
		return nil, err
	}
	if before, after, ok := strings.Cut(s, sep); ok {
		return &Tuple{Items: []Value{before, sep, after}}, nil
	}
	return &Tuple{Items: []Value{s, "", ""}}, nil
}

func rpartition(_ *state, s string, a []Value) (Value, error) {
	sep, err := needText(a[0])
	if err == nil && sep == "" {
		err = errors.New("empty separator")
	}
	if err != nil {
		return nil, err
	}
	if i := strings.LastIndex(s, sep); i >= 0 {
		return &Tuple{Items: []Value{s[:i], sep, s[i+len(sep):]}}, nil
	}
	return &Tuple{Items: []Value{"", "", s}}, nil
}

// justify pads to a width; left says how many of n fill characters go before.
func justify(left func(n, width int) int) func(*state, string, []Value) (Value, error) {
	return func(st *state, s string, a []Value) (Value, error) {
		width, err := needInt(a[0], 0)
		if err != nil {
			return nil, err
		}
		fill := " "
		if a[1] != nil {
			if fill, err = needText(a[1]); err != nil {
				return nil, err
			}
			if utf8.RuneCountInString(fill) != 1 {
				return nil, errors.New("the fill character must be exactly one character long")
			}
		}
		return pad(st, s, width, fill, left)
	}
}

func pad(st *state, s string, width int, fill string, left func(n, width int) int) (Value, error) {
	n := width - utf8.RuneCountInString(s)
	if n <= 0 {
		return s, nil
	}
	if n > math.MaxInt32 {
		return nil, errBytes
	}
	if err := st.build(len(s) + n*len(fill)); err != nil {
		return nil, err
	}
	before := left(n, width)
	return strings.Repeat(fill, before) + s + strings.Repeat(fill, n-before), nil
}

// centerLeft is how Python's str.center rounds: an odd rest goes to the left
// when the width is odd.
func centerLeft(n, width int) int { return n/2 + n&width&1 }

func zfill(st *state, s string, a []Value) (Value, error) {
	width, err := needInt(a[0], 0)
	if err != nil {
		return nil, err
	}
	sign := ""
	if s != "" && (s[0] == '+' || s[0] == '-') {
		sign, s, width = s[:1], s[1:], width-1
	}
	v, err := pad(st, s, width, "0", func(n, _ int) int { return n })
	if err != nil {
		return nil, err
	}
	return sign + v.(string), nil
}

func expandTabs(st *state, s string, a []Value) (Value, error) {
	size, err := needInt(a[0], 8)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		if size > math.MaxInt32 {
			return nil, errBytes
		}
		if err := st.build(len(s) + size*strings.Count(s, "\t")); err != nil {
			return nil, err
		}
	}
	var b strings.Builder
	column := 0
	for _, r := range s {
		switch r {
		case '\t':
			if size > 0 {
				n := size - column%size
				b.WriteString(strings.Repeat(" ", n))
				column += n
			}
		case '\n', '\r':
			b.WriteRune(r)
			column = 0
		default:
			b.WriteRune(r)
			column++
		}
	}
	return b.String(), nil
}
