package jinja

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

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
