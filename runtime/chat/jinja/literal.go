package jinja

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// digits returns the end of the digits at i; single underscores may separate
// them.
func (l *lexer) digits(i int, ok func(byte) bool) int {
	for i < len(l.src) {
		switch c := l.src[i]; {
		case ok(c):
			i++
		case c == '_' && i+1 < len(l.src) && ok(l.src[i+1]):
			i += 2
		default:
			return i
		}
	}
	return i
}

func isDecimal(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool { return isDecimal(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func (l *lexer) number() error {
	if end := l.floatEnd(); end > 0 {
		f, err := strconv.ParseFloat(strings.ReplaceAll(l.src[l.pos:end], "_", ""), 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range is infinite
			return l.errorf("malformed number %s", l.src[l.pos:end])
		}
		return l.emitNumber(f, end)
	}
	base, start, ok := 10, l.pos, isDecimal
	if l.src[l.pos] == '0' {
		ok = func(c byte) bool { return c == '0' }
		if l.pos+1 < len(l.src) {
			var b int
			var d func(byte) bool
			switch l.src[l.pos+1] | 0x20 {
			case 'b':
				b, d = 2, func(c byte) bool { return c == '0' || c == '1' }
			case 'o':
				b, d = 8, func(c byte) bool { return c >= '0' && c <= '7' }
			case 'x':
				b, d = 16, isHex
			}
			if b != 0 && l.digits(l.pos+2, d) > l.pos+2 {
				base, start, ok = b, l.pos+2, d
			}
		}
	}
	end := l.digits(start, ok)
	n, good := parseInt(strings.ReplaceAll(l.src[start:end], "_", ""), base)
	if !good {
		return l.errorf("the number %s is too long", l.src[l.pos:end])
	}
	return l.emitNumber(n, end)
}

func (l *lexer) emitNumber(v Value, end int) error {
	l.tokens = append(l.tokens, token{kind: tokNumber, line: l.line, text: l.src[l.pos:end], value: v})
	l.advance(end)
	return nil
}

// floatEnd returns the end of the floating point literal at pos, or 0 when what
// is there is no float: digits with a fraction, an exponent or both, and not
// after a dot.
func (l *lexer) floatEnd() int {
	if l.src[l.pos-1] == '.' {
		return 0
	}
	end := l.digits(l.pos, isDecimal)
	float := false
	if end+1 < len(l.src) && l.src[end] == '.' && isDecimal(l.src[end+1]) {
		end, float = l.digits(end+1, isDecimal), true
	}
	if end < len(l.src) && l.src[end]|0x20 == 'e' {
		exp := end + 1
		if l.sign(exp) != 0 {
			exp++
		}
		if exp < len(l.src) && isDecimal(l.src[exp]) {
			end, float = l.digits(exp, isDecimal), true
		}
	}
	if !float {
		return 0
	}
	return end
}

// maxDigits bounds integer literals, as Python bounds the conversion.
const maxDigits = 4300

// parseInt reads digits of a base into an int64, or a *big.Int when they do not
// fit.
func parseInt(s string, base int) (Value, bool) {
	if n, err := strconv.ParseInt(s, base, 64); err == nil {
		return n, true
	}
	if len(s) > maxDigits {
		return nil, false
	}
	b, ok := new(big.Int).SetString(s, base)
	if !ok {
		return nil, false
	}
	return normalizeBig(b), true
}

// normalizeBig returns an int64 when b fits.
func normalizeBig(b *big.Int) Value {
	if b.IsInt64() {
		return b.Int64()
	}
	return b
}

func (l *lexer) str(quote byte) error {
	for i := l.pos + 1; i < len(l.src); i++ {
		switch l.src[i] {
		case '\\':
			i++
		case quote:
			s, err := unescape(l.src[l.pos+1 : i])
			if err != nil {
				return l.errorf("%w", err)
			}
			l.emit(tokString, s)
			l.advance(i + 1)
			return nil
		}
	}
	return l.errorf("a string is not closed")
}

// simpleEscapes are the one-letter escapes of a Python string literal.
var simpleEscapes = map[byte]string{
	'\n': "", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

// unescape decodes the escapes of a Python string literal. Unknown ones stay as
// they are.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "\\") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		c := s[i]
		if t, ok := simpleEscapes[c]; ok {
			b.WriteString(t)
			continue
		}
		switch {
		case c >= '0' && c <= '7':
			end := i
			for end < len(s) && end < i+3 && s[end] >= '0' && s[end] <= '7' {
				end++
			}
			n, _ := strconv.ParseUint(s[i:end], 8, 16)
			b.WriteRune(rune(n))
			i = end - 1
		case c == 'x' || c == 'u' || c == 'U':
			width := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			if i+width >= len(s) {
				return "", fmt.Errorf("truncated \\%c escape", c)
			}
			n, err := strconv.ParseUint(s[i+1:i+1+width], 16, 32)
			if err != nil {
				return "", fmt.Errorf("truncated \\%c escape", c)
			}
			if n > unicode.MaxRune {
				return "", fmt.Errorf("illegal Unicode character in a \\%c escape", c)
			}
			b.WriteRune(rune(n))
			i += width
		case c == 'N':
			return "", fmt.Errorf("\\N escapes are not supported")
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}
