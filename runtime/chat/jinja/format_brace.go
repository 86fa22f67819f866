package jinja

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// formatMethod is str.format().
func formatMethod(st *state, s string, a *args) (Value, error) {
	named := NewDict(len(a.named))
	for _, n := range a.named {
		named.Set(n.name, n.value)
	}
	f := &braceFormat{st: st, pos: a.pos, named: named}
	text, err := f.format(s, 0)
	if err != nil {
		return nil, err
	}
	return st.text(text)
}

// formatMap is str.format_map().
func formatMap(st *state, s string, a []Value) (Value, error) {
	d, ok := a[0].(*Dict)
	if !ok {
		return nil, errors.New("format_map() needs a mapping")
	}
	text, err := (&braceFormat{st: st, named: d}).format(s, 0)
	if err != nil {
		return nil, err
	}
	return st.text(text)
}

// braceFormat is the state of a format operation.
type braceFormat struct {
	st     *state
	pos    []Value
	named  *Dict
	auto   int  // the next field without a number
	manual bool // a field had a number
}

// maxFormatDepth allows fields in the format of a field, and their empty formats.
const maxFormatDepth = 2

// format replaces the fields of s, which is at that depth of formats in formats.
func (f *braceFormat) format(s string, depth int) (string, error) {
	if depth > maxFormatDepth {
		return "", errors.New("max string recursion exceeded")
	}
	var b strings.Builder
	for s != "" {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		if i+1 < len(s) && s[i+1] == s[i] {
			b.WriteByte(s[i])
			s = s[i+2:]
			continue
		}
		if s[i] == '}' {
			return "", errors.New("single '}' encountered in format string")
		}
		end, err := fieldEnd(s[i:])
		if err != nil {
			return "", err
		}
		text, err := f.field(s[i+1:i+end], depth)
		if err != nil {
			return "", err
		}
		if b.Len()+len(text) > f.st.limits.Bytes {
			return "", errBytes
		}
		if err := f.st.build(len(text)); err != nil {
			return "", err
		}
		b.WriteString(text)
		s = s[i+end+1:]
	}
	return b.String(), nil
}

// fieldEnd returns the place of the brace that closes the one at s[0]. Brackets
// keep braces from counting.
func fieldEnd(s string) (int, error) {
	depth, bracket := 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '[' && depth == 1:
			bracket = true
		case c == ']':
			bracket = false
		case bracket:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i, nil
			}
		}
	}
	return 0, errors.New("expected '}' before end of string")
}

// field formats one replacement field: name, conversion and format.
func (f *braceFormat) field(s string, depth int) (string, error) {
	name, spec, conversion := s, "", byte(0)
	bracket := false
scan:
	for i := range len(s) {
		switch c := s[i]; {
		case c == '[':
			bracket = true
		case c == ']':
			bracket = false
		case bracket:
		case c == '!' && i+1 < len(s):
			name, conversion = s[:i], s[i+1]
			if i+2 < len(s) {
				if s[i+2] != ':' {
					return "", errors.New("expected ':' after conversion specifier")
				}
				spec = s[i+3:]
			}
			break scan
		case c == '!':
			return "", errors.New("end of string while looking for conversion specifier")
		case c == ':':
			name, spec = s[:i], s[i+1:]
			break scan
		}
	}
	v, err := f.lookup(name)
	if err != nil {
		return "", err
	}
	switch conversion {
	case 0:
	case 's', 'r', 'a':
		if v, err = convert(f.st, v, conversion); err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("unknown conversion specifier %q", conversion)
	}
	if spec, err = f.format(spec, depth+1); err != nil {
		return "", err
	}
	return formatSpec(f.st, v, spec)
}

// lookup resolves a field name: an argument, and attributes and items of it.
func (f *braceFormat) lookup(name string) (Value, error) {
	i := strings.IndexAny(name, ".[")
	if i < 0 {
		i = len(name)
	}
	first, rest := name[:i], name[i:]
	if first == "" && rest != "" {
		return nil, errors.New("a field with an attribute or item needs a name or number")
	}
	v, err := f.argument(first)
	for err == nil && rest != "" {
		var key string
		if rest[0] == '.' {
			rest = rest[1:]
			n := strings.IndexAny(rest, ".[")
			if n < 0 {
				n = len(rest)
			}
			key, rest = rest[:n], rest[n:]
			if key == "" {
				return nil, errors.New("empty attribute in format string")
			}
			v, err = getAttr(f.st, v, key)
			continue
		}
		if rest[0] != '[' {
			return nil, errors.New("only '.' or '[' may follow ']' in format field specifier")
		}
		n := strings.IndexByte(rest, ']')
		if n < 0 {
			return nil, errors.New("missing ']' in format string")
		}
		key, rest = rest[1:n], rest[n+1:]
		if key == "" {
			return nil, errors.New("empty attribute in format string")
		}
		if i, isNumber := parseIndex(key); isNumber {
			v, err = getItem(f.st, v, i)
		} else {
			v, err = getItem(f.st, v, key)
		}
	}
	return v, err
}

// parseIndex reads a key that is all digits.
func parseIndex(s string) (int64, bool) {
	for i := range len(s) {
		if !isDecimal(s[i]) {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func (f *braceFormat) argument(name string) (Value, error) {
	i, number := parseIndex(name)
	if name == "" {
		if f.manual {
			return nil, errors.New("cannot switch from manual field specification to automatic field numbering")
		}
		i, number = int64(f.auto), true
		f.auto++
	} else if number {
		if f.auto > 0 {
			return nil, errors.New("cannot switch from automatic field numbering to manual field specification")
		}
		f.manual = true
	}
	if number {
		if i >= int64(len(f.pos)) {
			return nil, errors.New("replacement index out of range for positional arguments")
		}
		return f.pos[i], nil
	}
	v, ok := f.named.Get(name)
	if !ok {
		return nil, fmt.Errorf("key error: '%s'", name)
	}
	return v, nil
}

// formatSpec is Python's format(v, spec).
func formatSpec(st *state, v Value, spec string) (string, error) {
	if spec == "" {
		return str(st, v)
	}
	f, err := parseSpec(spec)
	if err != nil {
		return "", err
	}
	if s, ok := text(v); ok {
		if f.verb != 0 && f.verb != 's' {
			return "", fmt.Errorf("unknown format code '%c' for object of type 'str'", f.verb)
		}
		if f.sign != 0 || f.alternate || f.group != 0 || f.align == '=' {
			return "", errors.New("sign, '#', grouping and '=' are not allowed in a string format")
		}
		return string(f.text(nil, s, '<')), nil
	}
	if f.alignIsPadded && f.align == 0 {
		f.align = '='
	}
	switch n := v.(type) {
	case bool:
		if f.verb == 0 {
			s, _ := str(st, v)
			return string(f.text(nil, s, '<')), nil
		}
	case int64:
		if f.verb == 'c' {
			if n < 0 || n > utf8.MaxRune {
				return "", errors.New("%c arg not in range(0x110000)")
			}
			return string(f.text(nil, string(rune(n)), '<')), nil
		}
	case float64:
		if strings.IndexByte("bcdoxXs", f.verb) >= 0 && f.verb != 0 {
			return "", fmt.Errorf("unknown format code '%c' for object of type 'float'", f.verb)
		}
	default:
		if _, ok := isNumber(v); !ok {
			return "", fmt.Errorf("unsupported format string passed to %s.__format__", typeName(v))
		}
	}
	if f.verb == 's' {
		return "", errors.New("unknown format code 's' for a number")
	}
	if _, isFloat := v.(float64); !isFloat && f.precision >= 0 && strings.IndexByte("eEfFgG%", f.verb) < 0 {
		return "", errors.New("precision not allowed in integer format specifier")
	}
	b, err := f.number(nil, v)
	return string(b), err
}

// parseSpec reads [[fill]align][sign][#][0][width][group][.precision][type].
func parseSpec(s string) (field, error) {
	f := field{fill: " ", precision: -1}
	isAlign := func(s string) bool { return s != "" && strings.IndexByte("<>=^", s[0]) >= 0 }
	_, n := utf8.DecodeRuneInString(s)
	explicitFill := false
	if isAlign(s[n:]) {
		f.fill, f.align, s = s[:n], s[n], s[n+1:]
		explicitFill = true
	} else if isAlign(s) {
		f.align, s = s[0], s[1:]
	}
	if s != "" && strings.IndexByte("+- ", s[0]) >= 0 {
		if s[0] != '-' {
			f.sign = s[0]
		}
		s = s[1:]
	}
	if strings.HasPrefix(s, "#") {
		f.alternate, s = true, s[1:]
	}
	if strings.HasPrefix(s, "0") {
		f.alignIsPadded, s = true, s[1:]
		if !explicitFill {
			f.fill = "0"
		}
	}
	width, err := takeNumber(&s)
	if err != nil {
		return f, err
	}
	f.width = max(width, 0)
	if s != "" && (s[0] == ',' || s[0] == '_') {
		f.group, s = s[0], s[1:]
	}
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		if f.precision, err = takeNumber(&s); err != nil {
			return f, err
		}
		if f.precision < 0 {
			return f, errors.New("format specifier missing precision")
		}
	}
	if len(s) > 1 {
		return f, fmt.Errorf("invalid format specifier")
	}
	if s != "" {
		f.verb = s[0]
		if strings.IndexByte("bcdeEfFgGnosxX%", f.verb) < 0 {
			return f, fmt.Errorf("unknown format code '%c'", f.verb)
		}
	}
	if f.group == ',' && (f.verb == 'x' || f.verb == 'X' || f.verb == 'b' || f.verb == 'o') {
		return f, fmt.Errorf("cannot specify ',' with '%c'", f.verb)
	}
	return f, nil
}
