package gateway

import (
	"bytes"
	"iter"
	"math"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string (RFC 8259, section 7). Bytes that are
// not UTF-8 become U+FFFD, as in encoding/json. U+2028 and U+2029 are escaped
// because old JavaScript ends a line at them; HTML characters are not, because
// nothing here is embedded in HTML.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hexDigits[r&15])
		default:
			i += size
			continue
		}
		i += size
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendInt appends v in decimal.
func appendInt(b []byte, v int) []byte { return strconv.AppendInt(b, int64(v), 10) }

// minLogprob stands for minus infinity, which JSON lacks; OpenAI sends the same.
const minLogprob = -9999.0

// appendLogprob appends a log-probability: a number in minLogprob..0.
func appendLogprob(b []byte, v float32) []byte {
	f := float64(v)
	if math.IsNaN(f) || f < minLogprob {
		f = minLogprob
	}
	if f >= 0 { // rounding can take it above; minus zero looks odd
		return append(b, '0')
	}
	return strconv.AppendFloat(b, f, 'g', -1, 32)
}

// jsonDepth reports whether the nesting of the JSON text b stays within limit.
// It does not validate b: it runs before the parser so that the parser never
// recurses further.
func jsonDepth(b []byte, limit int) bool {
	for _, depth := range jsonStructure(b) {
		if depth > limit {
			return false
		}
	}
	return true
}

// countMembers returns how many elements an array or fields an object has, which must be
// valid JSON without space around it. It takes no memory: decoded, two bytes of "0," would
// be two dozen.
func countMembers(raw []byte) int {
	if len(bytes.TrimSpace(raw[1:max(1, len(raw)-1)])) == 0 {
		return 0
	}
	n := 1
	for c, depth := range jsonStructure(raw) {
		if c == ',' && depth == 1 {
			n++
		}
	}
	return n
}

// jsonStructure yields the brackets, braces and commas of a JSON text outside of strings,
// each with the nesting behind it. The text need not be valid.
func jsonStructure(b []byte) iter.Seq2[byte, int] {
	return func(yield func(byte, int) bool) {
		depth := 0
		inString := false
		for i := 0; i < len(b); i++ {
			c := b[i]
			switch {
			case inString && c == '\\':
				i++
				continue
			case c == '"':
				inString = !inString
				continue
			case inString:
				continue
			case c == '{' || c == '[':
				depth++
			case c == '}' || c == ']':
				depth--
			case c != ',':
				continue
			}
			if !yield(c, depth) {
				return
			}
		}
	}
}
