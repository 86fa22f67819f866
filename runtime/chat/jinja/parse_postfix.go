package jinja

import (
	"slices"
)

// postfix parses attributes, items and calls behind an expression.
func (p *parser) postfix(e expr) (expr, error) {
	for chain := 0; ; chain++ {
		if chain > maxChain {
			return nil, p.errorf(p.peek().line, "too many attributes in one expression")
		}
		var err error
		switch t := p.peek(); {
		case p.isOp("."):
			p.next()
			e, err = p.attr(t.line, e)
		case p.isOp("["):
			p.next()
			e, err = p.item(t.line, e)
		case p.isOp("("):
			e, err = p.call(e)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) attr(line int, e expr) (expr, error) {
	switch t := p.next(); {
	case t.kind == tokName:
		return &attrExpr{line, e, t.text}, nil
	case t.kind == tokNumber && !isFloat(t.value):
		return &itemExpr{line, e, &constExpr{t.value}}, nil
	default:
		return nil, p.errorf(t.line, "expected a name or number after '.', got %s", t.describe())
	}
}

// item parses the inside of brackets: a key, a slice, or a tuple of keys.
func (p *parser) item(line int, e expr) (expr, error) {
	var keys []expr
	for !p.isOp("]") {
		if len(keys) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		var key expr
		var err error
		if !p.isOp(":") {
			if key, err = p.expression(); err != nil {
				return nil, err
			}
		}
		if p.isOp(":") {
			s, err := p.slice(line, e, key)
			if err != nil {
				return nil, err
			}
			if len(keys) > 0 || !p.isOp("]") {
				return nil, p.errorf(line, "a slice cannot be one of several keys")
			}
			p.next()
			return s, nil
		}
		keys = append(keys, key)
	}
	p.next()
	if len(keys) == 1 {
		return &itemExpr{line, e, keys[0]}, nil
	}
	return &itemExpr{line, e, &listExpr{items: keys, tuple: true}}, nil
}

// slice parses a slice from its first colon.
func (p *parser) slice(line int, e, start expr) (expr, error) {
	s := &sliceExpr{line: line, e: e, start: start}
	for _, bound := range []*expr{&s.stop, &s.step} {
		if !p.skipOp(":") {
			break
		}
		if p.isOp(":") || p.isOp("]") || p.isOp(",") {
			continue
		}
		var err error
		if *bound, err = p.expression(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (p *parser) call(f expr) (expr, error) {
	line := p.peek().line
	a, err := p.arguments()
	return &callExpr{line: line, f: f, args: a}, err
}

// arguments parses the arguments of a call, with their parentheses.
func (p *parser) arguments() (arguments, error) {
	var a arguments
	line := p.next().line
	for n := 0; !p.isOp(")"); n++ {
		if n > 0 {
			if err := p.expectOp(","); err != nil {
				return a, err
			}
			if p.isOp(")") {
				break
			}
		}
		var bad bool
		name := ""
		into := &a.star
		switch t := p.peek(); {
		case p.skipOp("*"):
			bad = a.star != nil || a.starStar != nil
		case p.skipOp("**"):
			bad, into = a.starStar != nil, &a.starStar
		case t.kind == tokName && p.after().kind == tokOp && p.after().text == "=":
			p.pos += 2
			bad = a.starStar != nil || slices.Contains(a.names, t.text)
			name, into = t.text, nil
		default:
			bad, into = a.star != nil || a.starStar != nil || len(a.named) > 0, nil
		}
		if bad {
			return a, p.errorf(line, "invalid arguments of a call")
		}
		e, err := p.expression()
		switch {
		case err != nil:
			return a, err
		case into != nil:
			*into = e
		case name != "":
			a.names, a.named = append(a.names, name), append(a.named, e)
		default:
			a.pos = append(a.pos, e)
		}
	}
	return a, p.expectOp(")")
}

// filters parses filters and tests behind an expression.
func (p *parser) filters(e expr) (expr, error) {
	for chain := 0; ; chain++ {
		if chain > maxChain {
			return nil, p.errorf(p.peek().line, "too many filters in one expression")
		}
		var err error
		switch {
		case p.skipOp("|"):
			e, err = p.filter(e)
		case p.skipName("is"):
			e, err = p.test(e)
		case p.isOp("("):
			e, err = p.call(e)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// filter parses the name and arguments of a filter of e.
func (p *parser) filter(e expr) (*filterExpr, error) {
	name, line, err := p.dotted()
	if err != nil {
		return nil, err
	}
	f := &filterExpr{line: line, name: name, filter: filters[name], e: e}
	if f.filter == nil && p.soft == 0 {
		p.unknown = append(p.unknown, p.errorf(line, "no filter named '%s'", name))
	}
	if p.isOp("(") {
		f.args, err = p.arguments()
	}
	return f, err
}

// test parses what follows is: a name, with or without not, and its arguments;
// a single argument may come without parentheses.
func (p *parser) test(e expr) (expr, error) {
	negated := p.skipName("not")
	name, line, err := p.dotted()
	if err != nil {
		return nil, err
	}
	t := &testExpr{line: line, name: name, test: tests[name], e: e}
	if t.test == nil && p.soft == 0 {
		p.unknown = append(p.unknown, p.errorf(line, "no test named '%s'", name))
	}
	switch next := p.peek(); {
	case p.isOp("("):
		t.args, err = p.arguments()
	case p.isName("is"):
		return nil, p.errorf(line, "tests cannot be chained with is")
	case next.kind == tokName && next.text != "else" && next.text != "or" && next.text != "and",
		next.kind == tokString, next.kind == tokNumber, p.isOp("["), p.isOp("{"):
		var arg expr
		if arg, err = p.primary(); err == nil {
			arg, err = p.postfix(arg)
		}
		t.args.pos = []expr{arg}
	}
	if err != nil {
		return nil, err
	}
	if negated {
		return &notExpr{t}, nil
	}
	return t, nil
}
