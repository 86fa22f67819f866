package jinja

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokData
	tokVarBegin
	tokVarEnd
	tokBlockBegin
	tokBlockEnd
	tokName
	tokString
	tokNumber // an int64, *big.Int or float64 in value
	tokOp
)

// token is a piece of the source. text is the data, name, string or operator.
type token struct {
	kind  tokenKind
	line  int
	text  string
	value Value
}

// describe names a token in error messages.
func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "the end of the template"
	case tokData:
		return "template data"
	case tokVarBegin:
		return "'{{'"
	case tokVarEnd:
		return "'}}'"
	case tokBlockBegin:
		return "'{%'"
	case tokBlockEnd:
		return "'%}'"
	case tokString:
		return "a string"
	case tokNumber:
		return "a number"
	}
	return "'" + t.text + "'"
}

// lexer cuts the source into tokens. The rules for blanks are those of Jinja2
// with trim_blocks (a newline after a block tag is dropped) and lstrip_blocks
// (blanks between the start of a line and a block tag are dropped).
type lexer struct {
	src    string
	pos    int
	line   int
	tokens []token
	// lineStart: the source before pos ends a line, or pos is the beginning.
	lineStart bool
}

func lex(source string) ([]token, error) {
	source = normalizeNewlines(strings.ToValidUTF8(source, "\uFFFD"))
	source = strings.TrimSuffix(source, "\n")
	l := &lexer{src: source, line: 1, lineStart: true}
	for l.pos < len(l.src) {
		if err := l.root(); err != nil {
			return nil, err
		}
	}
	l.emit(tokEOF, "")
	return l.tokens, nil
}

func normalizeNewlines(s string) string {
	if !strings.Contains(s, "\r") {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

func (l *lexer) emit(kind tokenKind, text string) {
	l.tokens = append(l.tokens, token{kind: kind, line: l.line, text: text})
}

func (l *lexer) errorf(format string, args ...any) error {
	return &Error{Line: l.line, Err: fmt.Errorf(format, args...)}
}

// advance moves to pos, counting lines.
func (l *lexer) advance(pos int) {
	if pos > l.pos {
		l.line += strings.Count(l.src[l.pos:pos], "\n")
		l.lineStart = l.src[pos-1] == '\n'
		l.pos = pos
	}
}

// root lexes data up to the next tag, and that tag.
func (l *lexer) root() error {
	start := l.pos
	for {
		i := strings.IndexByte(l.src[start:], '{')
		if i < 0 || start+i+1 >= len(l.src) {
			l.data(l.src[l.pos:])
			l.advance(len(l.src))
			return nil
		}
		start += i
		switch l.src[start+1] {
		case '{', '%', '#':
			return l.tag(start)
		}
		start++
	}
}

func (l *lexer) data(text string) {
	if text != "" {
		l.emit(tokData, text)
	}
}

// sign returns the '-' or '+' at i, or 0.
func (l *lexer) sign(i int) byte {
	if i < len(l.src) && (l.src[i] == '-' || l.src[i] == '+') {
		return l.src[i]
	}
	return 0
}

// textBefore emits the data before the tag at start, stripped as the tag asks.
func (l *lexer) textBefore(start int, sign byte, isVariable bool) {
	text := l.src[l.pos:start]
	switch {
	case sign == '-':
		text = strings.TrimRightFunc(text, isSpace)
	case sign == 0 && !isVariable:
		bol := strings.LastIndexByte(text, '\n') + 1
		if (bol > 0 || l.lineStart) && strings.TrimLeftFunc(text[bol:], isSpace) == "" {
			text = text[:bol]
		}
	}
	l.data(text)
	l.advance(start)
}

// tag lexes the tag that begins at start.
func (l *lexer) tag(start int) error {
	kind := l.src[start+1]
	sign := l.sign(start + 2)
	body := start + 2
	if sign != 0 {
		body++
	}
	l.textBefore(start, sign, kind == '{')
	switch kind {
	case '#':
		return l.comment(body)
	case '%':
		if end := l.rawBegin(body); end > 0 {
			return l.raw(end)
		}
		l.emit(tokBlockBegin, "")
		l.advance(body)
		return l.code(tokBlockEnd)
	}
	l.emit(tokVarBegin, "")
	l.advance(body)
	return l.code(tokVarEnd)
}

func (l *lexer) skipSpace(i int) int {
	return len(l.src) - len(strings.TrimLeftFunc(l.src[i:], isSpace))
}

// tagEnd matches the end of a tag at i: close, or '-' or '+' and close, with
// the blanks and the newline that go with it. It returns the position after it,
// or 0.
func (l *lexer) tagEnd(i int, closing string, plus, trim bool) int {
	s := l.src[i:]
	switch {
	case strings.HasPrefix(s, "-"+closing):
		return l.skipSpace(i + 1 + len(closing))
	case plus && strings.HasPrefix(s, "+"+closing):
		return i + 1 + len(closing)
	case strings.HasPrefix(s, closing):
		i += len(closing)
		if trim && i < len(l.src) && l.src[i] == '\n' {
			i++
		}
		return i
	}
	return 0
}

func (l *lexer) comment(body int) error {
	i := strings.Index(l.src[body:], "#}")
	if i < 0 {
		return l.errorf("a comment is not closed")
	}
	end := body + i
	if end > body && l.sign(end-1) != 0 {
		end--
	}
	l.advance(l.tagEnd(end, "#}", true, true))
	return nil
}

// rawBegin returns the position after a raw tag whose inside begins at body, or
// 0 when it is another tag.
func (l *lexer) rawBegin(body int) int {
	i := l.skipSpace(body)
	if !strings.HasPrefix(l.src[i:], "raw") {
		return 0
	}
	return l.tagEnd(l.skipSpace(i+len("raw")), "%}", false, false)
}

// raw lexes verbatim text up to its endraw tag.
func (l *lexer) raw(start int) error {
	l.advance(start)
	for i := start; ; {
		j := strings.Index(l.src[i:], "{%")
		if j < 0 {
			return l.errorf("a raw block is not closed")
		}
		tag := i + j
		i = tag + 2
		sign := l.sign(i)
		inner := i
		if sign != 0 {
			inner++
		}
		inner = l.skipSpace(inner)
		if !strings.HasPrefix(l.src[inner:], "endraw") {
			continue
		}
		if end := l.tagEnd(l.skipSpace(inner+len("endraw")), "%}", true, true); end > 0 {
			l.textBefore(tag, sign, false)
			l.advance(end)
			return nil
		}
	}
}

// code lexes the inside of a tag up to its end.
func (l *lexer) code(end tokenKind) error {
	var open []byte // the brackets to close
	for {
		l.advance(l.skipSpace(l.pos))
		if l.pos >= len(l.src) {
			return nil // the parser reports the missing end
		}
		if len(open) == 0 {
			var after int
			if end == tokVarEnd {
				after = l.tagEnd(l.pos, "}}", false, false)
			} else {
				after = l.tagEnd(l.pos, "%}", true, true)
			}
			if after > 0 {
				l.emit(end, "")
				l.advance(after)
				return nil
			}
		}
		c := l.src[l.pos]
		var err error
		switch {
		case c >= '0' && c <= '9':
			err = l.number()
		case c == '\'' || c == '"':
			err = l.str(c)
		case isNameRune(l.rune()):
			err = l.name()
		default:
			open, err = l.operator(open)
		}
		if err != nil {
			return err
		}
	}
}

func (l *lexer) rune() rune {
	r, _ := utf8.DecodeRuneInString(l.src[l.pos:])
	return r
}

func isNameRune(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Mc, r)
}

func (l *lexer) name() error {
	end := l.pos
	for i, r := range l.src[l.pos:] {
		if !isNameRune(r) {
			break
		}
		if i == 0 && unicode.IsDigit(r) || r == utf8.RuneError {
			return l.errorf("invalid character in identifier")
		}
		end = l.pos + i + utf8.RuneLen(r)
	}
	l.emit(tokName, l.src[l.pos:end])
	l.advance(end)
	return nil
}

// operators, the longer before their beginnings.
var operators = []string{
	"//", "**", "==", "!=", ">=", "<=",
	"+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
}

func (l *lexer) operator(open []byte) ([]byte, error) {
	for _, op := range operators {
		if !strings.HasPrefix(l.src[l.pos:], op) {
			continue
		}
		switch op {
		case "(":
			open = append(open, ')')
		case "[":
			open = append(open, ']')
		case "{":
			open = append(open, '}')
		case ")", "]", "}":
			if len(open) == 0 {
				return nil, l.errorf("unexpected '%s'", op)
			}
			if want := open[len(open)-1]; want != op[0] {
				return nil, l.errorf("unexpected '%s', expected '%c'", op, want)
			}
			open = open[:len(open)-1]
		}
		l.emit(tokOp, op)
		l.advance(l.pos + len(op))
		return open, nil
	}
	return nil, l.errorf("unexpected character %q", l.rune())
}
