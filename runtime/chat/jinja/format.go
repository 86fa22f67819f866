package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxField bounds the width and precision of a formatted field.
const maxField = 1 << 16

// field is how one value is formatted, by % or by format().
type field struct {
	fill          string // one character
	align         byte   // '<', '>', '^', '=', or 0 for the default
	sign          byte   // '+', ' ', or 0
	alternate     bool   // '#'
	width         int
	group         byte // ',' or '_', or 0
	precision     int  // -1 when not given
	verb          byte // 0 when not given
	percentStyle  bool // of the % operator: a few details differ
	alignIsPadded bool // '0' was given
}

// convert is str(), repr() or ascii().
func convert(st *state, v Value, how byte) (string, error) {
	if how == 's' {
		return str(st, v)
	}
	s, err := repr(st, v)
	if how == 'r' || err != nil {
		return s, err
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r <= 0xff:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String(), nil
}

// truncate is int() of a float.
func truncate(x float64) (Value, error) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil, fmt.Errorf("cannot convert float %v to integer", x)
	}
	n, _ := big.NewFloat(x).Int(nil)
	return normalizeBig(n), nil
}

// text pads text.
func (f field) text(b []byte, s string, align byte) []byte {
	if f.precision >= 0 {
		s = s[:runeOffset(s, f.precision)]
	}
	if f.align != 0 {
		align = f.align
	}
	return f.pad(b, "", s, align)
}

// pad writes a sign or prefix and a body, filled to the width.
func (f field) pad(b []byte, prefix, body string, align byte) []byte {
	n := f.width - utf8.RuneCountInString(prefix) - utf8.RuneCountInString(body)
	fill := func(n int) {
		for range n {
			b = append(b, f.fill...)
		}
	}
	switch align {
	case '>':
		fill(n)
		n = 0
	case '^':
		fill(n / 2)
		n -= n / 2
	}
	b = append(b, prefix...)
	if align == '=' {
		fill(n)
		n = 0
	}
	b = append(b, body...)
	fill(n)
	return b
}

// number formats an integer or a float.
func (f field) number(b []byte, v Value) ([]byte, error) {
	var negative bool
	var digits, prefix string
	var err error
	switch n := v.(type) {
	case float64:
		negative = math.Signbit(n) && !math.IsNaN(n)
		digits, err = f.float(math.Abs(n))
	case *big.Int:
		negative = n.Sign() < 0
		digits, prefix, err = f.integer(new(big.Int).Abs(n))
	default:
		i, ok := isInt(v)
		if !ok {
			return nil, fmt.Errorf("%%%c format: a number is required, not %s", f.verb, typeName(v))
		}
		negative = i < 0
		digits, prefix, err = f.integer(new(big.Int).Abs(big.NewInt(i)))
	}
	if err != nil {
		return nil, err
	}
	switch {
	case negative:
		prefix = "-" + prefix
	case f.sign != 0:
		prefix = string(f.sign) + prefix
	}
	align := f.align
	if align == 0 {
		align = '>'
	}
	if f.group != 0 {
		width := 0
		if f.fill == "0" && align == '=' {
			width = f.width - len(prefix)
		}
		digits = f.grouped(digits, width)
	}
	return f.pad(b, prefix, digits, align), nil
}

func (f field) integer(n *big.Int) (digits, prefix string, err error) {
	switch f.verb {
	case 0, 'd', 'n':
		digits = n.String()
	case 'b':
		digits, prefix = n.Text(2), "0b"
	case 'o':
		digits, prefix = n.Text(8), "0o"
	case 'x':
		digits, prefix = n.Text(16), "0x"
	case 'X':
		digits, prefix = strings.ToUpper(n.Text(16)), "0X"
	default:
		x, _ := new(big.Float).SetInt(n).Float64()
		digits, err = f.float(x)
		return digits, "", err
	}
	if !f.alternate {
		prefix = ""
	}
	if f.percentStyle && f.precision > len(digits) {
		digits = strings.Repeat("0", f.precision-len(digits)) + digits
	}
	return digits, prefix, nil
}

// float formats a number that is not negative.
func (f field) float(x float64) (string, error) {
	verb, precision := f.verb, f.precision
	percent := ""
	switch verb {
	case 0:
		if precision < 0 {
			return string(appendFloat(nil, x)), nil
		}
		return generalFloat(x, precision, true, f.alternate), nil
	case 'n':
		verb = 'g'
	case '%':
		x, verb, percent = x*100, 'f', "%"
	}
	if precision < 0 {
		precision = 6
	}
	var s string
	switch verb | 0x20 {
	case 'f':
		s = strconv.FormatFloat(x, 'f', precision, 64)
	case 'e':
		s = strconv.FormatFloat(x, 'e', precision, 64)
	case 'g':
		s = generalFloat(x, precision, false, f.alternate)
	default:
		return "", fmt.Errorf("unknown format code '%c' for a number", f.verb)
	}
	switch {
	case math.IsNaN(x):
		s = "nan"
	case math.IsInf(x, 0):
		s = "inf"
	case f.alternate && precision == 0 && verb|0x20 == 'f':
		s += "."
	}
	if verb >= 'A' && verb <= 'Z' {
		s = strings.ToUpper(s)
	}
	return s + percent, nil
}

// generalFloat is the g format: precision significant digits, with an exponent
// when it is below -4 or not below the precision. keepPoint is the format
// without a code, which looks like repr.
func generalFloat(x float64, precision int, keepPoint, alternate bool) string {
	if math.IsNaN(x) {
		return "nan"
	}
	if math.IsInf(x, 0) {
		return "inf"
	}
	precision = max(precision, 1)
	s := strconv.FormatFloat(x, 'e', precision-1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	exp, _ := strconv.Atoi(exponent)
	limit := precision
	if keepPoint {
		limit = max(precision-1, 1)
		if x == 0 {
			limit = 1
		}
	}
	trim := func(s string) string {
		if !alternate && strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		return s
	}
	if exp < -4 || exp >= limit && x != 0 {
		return trim(mantissa) + "e" + exponent
	}
	s = trim(strconv.FormatFloat(x, 'f', max(precision-1-exp, 0), 64))
	if keepPoint && !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// grouped puts separators between thousands; zeros fill up to the width.
func (f field) grouped(s string, width int) string {
	size := 3
	if f.verb == 'x' || f.verb == 'X' || f.verb == 'b' || f.verb == 'o' {
		size = 4
	}
	i := strings.IndexFunc(s, func(r rune) bool { return r == '.' || r == 'e' || r == '%' })
	if i < 0 {
		i = len(s)
	}
	whole, rest := s[:i], s[i:]
	for {
		n := len(whole) + (len(whole)-1)/size
		if n+len(rest) >= width {
			break
		}
		whole = "0" + whole
	}
	var b strings.Builder
	for i := range len(whole) {
		if i > 0 && (len(whole)-i)%size == 0 {
			b.WriteByte(f.group)
		}
		b.WriteByte(whole[i])
	}
	return b.String() + rest
}
