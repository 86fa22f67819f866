package jinja

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// formatPercent is s % v.
func formatPercent(st *state, s string, v Value) (Value, error) {
	f := &percentFormat{st: st, rest: s}
	if t, ok := v.(*Tuple); ok {
		f.items = t.Items
	} else {
		f.items = []Value{v}
	}
	switch v.(type) {
	case *Dict:
		f.mapping = v
	case *Tuple, string, Markup:
	case *List, rangeValue, *undefined:
		// Python takes everything that can be indexed for a mapping, which may
		// be left unused.
		f.mapping = v
	}
	for {
		i := strings.IndexByte(f.rest, '%')
		if i < 0 {
			f.b = append(f.b, f.rest...)
			break
		}
		f.b = append(f.b, f.rest[:i]...)
		f.rest = f.rest[i+1:]
		if err := f.directive(); err != nil {
			return nil, err
		}
	}
	if f.used < len(f.items) && f.mapping == nil {
		return nil, errors.New("not all arguments converted during string formatting")
	}
	return st.text(string(f.b))
}

// percentFormat is the state of a % operation.
type percentFormat struct {
	st      *state
	b       []byte
	rest    string
	items   []Value
	used    int
	mapping Value // what %(name)s looks into, or nil
}

// arg returns the next argument.
func (f *percentFormat) arg() (Value, error) {
	if f.used >= len(f.items) {
		return nil, errors.New("not enough arguments for format string")
	}
	f.used++
	return f.items[f.used-1], nil
}

// number reads a width or precision: digits or a star.
func (f *percentFormat) number() (int, error) {
	if strings.HasPrefix(f.rest, "*") {
		f.rest = f.rest[1:]
		v, err := f.arg()
		if err != nil {
			return 0, err
		}
		n, ok := v.(int64)
		if !ok {
			return 0, errors.New("* wants int")
		}
		if n < -maxField || n > maxField {
			return 0, errBytes
		}
		return int(n), nil
	}
	return takeNumber(&f.rest)
}

// takeNumber reads digits from the beginning of s: -1 when there are none.
func takeNumber(s *string) (int, error) {
	i := 0
	for i < len(*s) && isDecimal((*s)[i]) {
		i++
	}
	if i == 0 {
		return -1, nil
	}
	n, err := strconv.Atoi((*s)[:i])
	*s = (*s)[i:]
	if err != nil || n > maxField {
		return 0, errBytes
	}
	return n, nil
}

// directive formats what follows a %.
func (f *percentFormat) directive() error {
	spec := field{fill: " ", precision: -1, percentStyle: true}
	named := false
	if strings.HasPrefix(f.rest, "(") {
		depth, end := 0, -1
		for i := range len(f.rest) {
			if f.rest[i] == '(' {
				depth++
			} else if f.rest[i] == ')' {
				if depth--; depth == 0 {
					end = i
					break
				}
			}
		}
		if end < 0 {
			return errors.New("incomplete format key")
		}
		if f.mapping == nil {
			return errors.New("format requires a mapping")
		}
		key := f.rest[1:end]
		f.rest = f.rest[end+1:]
		d, ok := f.mapping.(*Dict)
		if !ok {
			return errors.New("format requires a mapping")
		}
		v, ok := d.Get(key)
		if !ok {
			return fmt.Errorf("key error: '%s'", key)
		}
		f.items, f.used, named = []Value{v}, 0, true
	}
	for ; f.rest != ""; f.rest = f.rest[1:] {
		switch f.rest[0] {
		case '-':
			spec.align = '<'
			continue
		case '+':
			spec.sign = '+'
			continue
		case ' ':
			if spec.sign == 0 {
				spec.sign = ' '
			}
			continue
		case '#':
			spec.alternate = true
			continue
		case '0':
			spec.alignIsPadded = true
			continue
		}
		break
	}
	width, err := f.number()
	if err != nil {
		return err
	}
	if width < 0 && width != -1 {
		spec.align, width = '<', -width
	}
	spec.width = max(width, 0)
	if strings.HasPrefix(f.rest, ".") {
		f.rest = f.rest[1:]
		if spec.precision, err = f.number(); err != nil {
			return err
		}
		spec.precision = max(spec.precision, 0)
	}
	if f.rest != "" && strings.IndexByte("hlL", f.rest[0]) >= 0 {
		f.rest = f.rest[1:]
	}
	if f.rest == "" {
		return errors.New("incomplete format")
	}
	spec.verb = f.rest[0]
	f.rest = f.rest[1:]
	if spec.verb == '%' {
		f.b = append(f.b, '%')
		return nil
	}
	v, err := f.arg()
	if err != nil {
		return err
	}
	if named {
		f.items, f.used = nil, 0
	}
	if f.b, err = spec.percent(f.st, f.b, v); err != nil {
		return err
	}
	if len(f.b) > f.st.limits.Bytes {
		return errBytes
	}
	return f.st.scan(spec.width + 32)
}

// percent formats v by a % directive.
func (f field) percent(st *state, b []byte, v Value) ([]byte, error) {
	switch f.verb {
	case 's', 'r', 'a':
		s, err := convert(st, v, f.verb)
		if err != nil {
			return nil, err
		}
		f.alignIsPadded = false
		return f.text(b, s, '>'), st.build(len(s))
	case 'c':
		if s, ok := text(v); ok && utf8.RuneCountInString(s) == 1 {
			return f.text(b, s, '>'), nil
		}
		n, ok := isInt(v)
		if !ok || n < 0 || n > utf8.MaxRune {
			return nil, errors.New("%c requires int or char")
		}
		return f.text(b, string(rune(n)), '>'), nil
	case 'd', 'i', 'u':
		f.verb = 'd'
		if x, ok := v.(float64); ok {
			n, err := truncate(x)
			if err != nil {
				return nil, err
			}
			v = n
		}
	case 'x', 'X', 'o':
	case 'e', 'E', 'f', 'F', 'g', 'G':
		x, ok := isNumber(v)
		if !ok {
			if u, isUndefined := v.(*undefined); isUndefined {
				return nil, u.error()
			}
			return nil, fmt.Errorf("must be real number, not %s", typeName(v))
		}
		v = x
	default:
		return nil, fmt.Errorf("unsupported format character '%c'", f.verb)
	}
	if u, ok := v.(*undefined); ok && f.verb == 'd' {
		return nil, u.error()
	}
	if f.align == 0 && f.alignIsPadded {
		f.fill, f.align = "0", '='
	}
	return f.number(b, v)
}
