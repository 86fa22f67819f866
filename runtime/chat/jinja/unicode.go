package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// isSpace is Python's str.isspace() of a character: Unicode's white space and
// the four ASCII separators.
func isSpace(r rune) bool {
	return r >= 0x1c && r <= 0x1f || unicode.IsSpace(r)
}

// isLineBreak says where str.splitlines() cuts.
func isLineBreak(r rune) bool {
	return r >= '\n' && r <= '\r' || r >= 0x1c && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
}

// isASCII says that code points are bytes.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// runeCount is the length of a string in code points.
func runeCount(st *state, s string) (int, error) {
	return utf8.RuneCountInString(s), st.scan(len(s))
}

// runeOffset returns the byte offset of the n-th code point, len(s) when there
// are not as many.
func runeOffset(s string, n int) int {
	if n <= 0 {
		return 0
	}
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// Full case mappings for text that is not ASCII: one letter may become several.
// A Caser is not safe for concurrent use, so each call makes its own.

func toUpper(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return cases.Upper(language.Und).String(s)
}

func toLower(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return cases.Lower(language.Und).String(s)
}

func caseFold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return cases.Fold().String(s)
}

// titleRune is the title case of one letter, which may be several.
func titleRune(r rune) string {
	if t := unicode.ToTitle(r); t != r || unicode.IsTitle(r) || r < utf8.RuneSelf {
		return string(t)
	}
	up := []rune(toUpper(string(r)))
	if len(up) < 2 {
		return string(r)
	}
	return string(up[0]) + toLower(string(up[1:]))
}

// capitalize is str.capitalize().
func capitalize(s string) string {
	if s == "" {
		return s
	}
	r, n := utf8.DecodeRuneInString(s)
	return titleRune(r) + toLower(s[n:])
}

// isUpper and isLower are Unicode's properties Uppercase and Lowercase, which
// cover more than letters: Roman numerals and circled letters, for instance.
func isUpper(r rune) bool { return unicode.IsUpper(r) || unicode.Is(unicode.Other_Uppercase, r) }

func isLower(r rune) bool { return unicode.IsLower(r) || unicode.Is(unicode.Other_Lowercase, r) }

// isCased says that a character has a case.
func isCased(r rune) bool { return isUpper(r) || isLower(r) || unicode.IsTitle(r) }

// titleCase is str.title(): the first letter of each run of cased letters.
func titleCase(s string) string {
	var b strings.Builder
	prev := false
	for _, r := range s {
		switch {
		case !isCased(r):
			b.WriteRune(r)
			prev = false
		case prev:
			b.WriteString(toLower(string(r)))
		default:
			b.WriteString(titleRune(r))
			prev = true
		}
	}
	return b.String()
}

// swapCase is str.swapcase().
func swapCase(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case isUpper(r):
			b.WriteString(toLower(string(r)))
		case isLower(r):
			b.WriteString(toUpper(string(r)))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isTitled is str.istitle().
func isTitled(s string) bool {
	cased, prev := false, false
	for _, r := range s {
		switch {
		case isUpper(r) || unicode.IsTitle(r):
			if prev {
				return false
			}
			cased, prev = true, true
		case isLower(r):
			if !prev {
				return false
			}
		default:
			prev = false
		}
	}
	return cased
}

// hasCase is str.isupper() or str.islower(): at least one letter has the case,
// and none another.
func hasCase(s string, want, other func(rune) bool) bool {
	seen := false
	for _, r := range s {
		switch {
		case other(r) || unicode.IsTitle(r):
			return false
		case want(r):
			seen = true
		}
	}
	return seen
}

// allRunes says that s is not empty and all characters hold.
func allRunes(s string, ok func(rune) bool) bool {
	for _, r := range s {
		if !ok(r) {
			return false
		}
	}
	return s != ""
}

// stripSet returns whether a character is to be stripped: white space when set
// is nil, else the characters of the set.
func stripSet(set Value) func(rune) bool {
	chars, ok := text(set)
	if !ok {
		return isSpace
	}
	return func(r rune) bool { return strings.ContainsRune(chars, r) }
}

// splitLines is str.splitlines().
func splitLines(s string, keepEnds bool) []string {
	var lines []string
	for s != "" {
		i := strings.IndexFunc(s, isLineBreak)
		if i < 0 {
			return append(lines, s)
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		if strings.HasPrefix(s[i:], "\r\n") {
			n = 2
		}
		end := i
		if keepEnds {
			end += n
		}
		lines = append(lines, s[:end])
		s = s[i+n:]
	}
	return lines
}

// htmlEscapes are those of MarkupSafe.
var htmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

// escapeHTML escapes text, counting the result before it is made.
func escapeHTML(st *state, s string) (string, error) {
	special := 0
	for i := range len(s) {
		if strings.IndexByte(`&<>"'`, s[i]) >= 0 {
			special++
		}
	}
	if special == 0 {
		return s, st.scan(len(s))
	}
	if err := st.build(len(s) + 4*special); err != nil {
		return "", err
	}
	return htmlEscapes.Replace(s), nil
}
