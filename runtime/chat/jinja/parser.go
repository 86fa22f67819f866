package jinja

import (
	"fmt"
	"slices"
	"strings"
)

// maxDepth bounds how deep statements, brackets and operators nest, and
// maxChain how many operators may follow one another on a level.
const (
	maxDepth = 400
	maxChain = 2000
)

// parser builds the tree of a template by recursive descent; expressions are
// parsed by binding power (parse_expression.go).
type parser struct {
	tokens  []token
	pos     int
	symbols map[string]int
	names   []string // by symbol
	depth   int
	loops   int      // loops around the statement, within its macro
	inFor   int      // loops around the statement, macros or not
	soft    int      // conditions around: unknown filters fail only when they run
	open    []string // the names of the open tags
	unknown []error  // unknown filters and tests outside of conditions
	// uses collects the names that a macro's or loop's body reads; nil outside.
	uses []map[string]bool
}

func (p *parser) symbol(name string) int {
	sym, ok := p.symbols[name]
	if !ok {
		sym = len(p.names)
		p.symbols[name] = sym
		p.names = append(p.names, name)
	}
	return sym
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != tokEOF {
		p.pos++
	}
	return t
}

// after returns the token after the next one.
func (p *parser) after() token { return p.tokens[min(p.pos+1, len(p.tokens)-1)] }

func (p *parser) isOp(op string) bool {
	t := p.peek()
	return t.kind == tokOp && t.text == op
}

func (p *parser) isName(name string) bool {
	t := p.peek()
	return t.kind == tokName && t.text == name
}

func (p *parser) skipOp(op string) bool {
	if p.isOp(op) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) skipName(name string) bool {
	if p.isName(name) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) errorf(line int, format string, args ...any) error {
	return &Error{Line: line, Err: fmt.Errorf(format, args...)}
}

func (p *parser) unexpected(wanted string) error {
	t := p.peek()
	return p.errorf(t.line, "expected %s, got %s", wanted, t.describe())
}

func (p *parser) expect(kind tokenKind) (token, error) {
	if t := p.peek(); t.kind != kind {
		return t, p.unexpected(token{kind: kind, text: "a name"}.describe())
	}
	return p.next(), nil
}

func (p *parser) expectOp(op string) error {
	if !p.skipOp(op) {
		return p.unexpected("'" + op + "'")
	}
	return nil
}

func (p *parser) expectName() (token, error) { return p.expect(tokName) }

// enter counts a level of nesting; the result ends it.
func (p *parser) enter() (leave func(), err error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf(p.peek().line, "nested more than %d deep", maxDepth)
	}
	return func() { p.depth-- }, nil
}

func (p *parser) template() ([]stmt, error) {
	body, _, err := p.body()
	if err == nil && len(p.unknown) > 0 {
		err = p.unknown[0]
	}
	return body, err
}

// body parses statements up to the end of the template or a tag of ends, whose
// name it consumes and returns.
func (p *parser) body(ends ...string) (body []stmt, end string, err error) {
	leave, err := p.enter()
	if err != nil {
		return nil, "", err
	}
	defer leave()
	for {
		t := p.next()
		switch t.kind {
		case tokEOF:
			if len(ends) > 0 {
				return nil, "", p.errorf(t.line, "unexpected end of the template: '%s' is not closed", p.open[len(p.open)-1])
			}
			return body, "", nil
		case tokData:
			body = append(body, &textStmt{t.text})
		case tokVarBegin:
			e, err := p.tuple(true)
			if err != nil {
				return nil, "", err
			}
			if _, err := p.expect(tokVarEnd); err != nil {
				return nil, "", err
			}
			body = append(body, &outputStmt{t.line, e})
		case tokBlockBegin:
			name, err := p.expectName()
			if err != nil {
				return nil, "", err
			}
			if slices.Contains(ends, name.text) {
				return body, name.text, nil
			}
			s, err := p.statement(name)
			if err != nil {
				return nil, "", err
			}
			if _, err := p.expect(tokBlockEnd); err != nil {
				return nil, "", err
			}
			body = append(body, s...)
		default:
			return nil, "", p.errorf(t.line, "unexpected %s", t.describe())
		}
	}
}

// block parses the end of an opening tag and the body behind it. Only the bodies
// of conditions are conditional for unknown filters.
func (p *parser) block(ends ...string) ([]stmt, string, error) {
	if !slices.Contains(ends, "endif") {
		soft := p.soft
		p.soft = 0
		defer func() { p.soft = soft }()
	}
	p.skipOp(":")
	if _, err := p.expect(tokBlockEnd); err != nil {
		return nil, "", err
	}
	return p.body(ends...)
}

// use notes that a variable is read.
func (p *parser) use(name string) {
	if n := len(p.uses); n > 0 {
		p.uses[n-1][name] = true
	}
}

// dotted parses a name with dots, as filters and tests may have.
func (p *parser) dotted() (string, int, error) {
	name, err := p.expectName()
	if err != nil {
		return "", 0, err
	}
	parts := []string{name.text}
	for p.skipOp(".") {
		more, err := p.expectName()
		if err != nil {
			return "", 0, err
		}
		parts = append(parts, more.text)
	}
	return strings.Join(parts, "."), name.line, nil
}
