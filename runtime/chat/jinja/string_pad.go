package jinja

import (
	"errors"
	"math"
	"strings"
	"unicode/utf8"
)

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
