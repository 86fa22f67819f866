package jinja

import (
	"slices"
)

// Binding powers of the operators, from the loosest. Jinja's differ from
// Python's: ~ binds tighter than + and -, ** is left-associative, and a sign
// binds tighter than **.
const (
	bindCond = iota
	bindOr
	bindAnd
	bindNot
	bindCompare
	bindAdd
	bindConcat
	bindMul
	bindPow
)

// infix returns the binding power of the operator at the parser, its name, and
// how many tokens it has; 0 when there is none.
func (p *parser) infix() (power int, op string, tokens int) {
	t := p.peek()
	switch t.kind {
	case tokOp:
		switch t.text {
		case "==", "!=", "<", "<=", ">", ">=":
			return bindCompare, t.text, 1
		case "+", "-":
			return bindAdd, t.text, 1
		case "~":
			return bindConcat, t.text, 1
		case "*", "/", "//", "%":
			return bindMul, t.text, 1
		case "**":
			return bindPow, t.text, 1
		}
	case tokName:
		switch t.text {
		case "or":
			return bindOr, t.text, 1
		case "and":
			return bindAnd, t.text, 1
		case "in":
			return bindCompare, t.text, 1
		case "not":
			if a := p.after(); a.kind == tokName && a.text == "in" {
				return bindCompare, "not in", 2
			}
		}
	}
	return 0, "", 0
}

// expression parses a whole expression.
func (p *parser) expression() (expr, error) {
	leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	unknown := len(p.unknown)
	e, err := p.operand(bindOr)
	if err != nil {
		return nil, err
	}
	if p.isName("if") {
		p.unknown = p.unknown[:unknown] // e is conditional
	}
	for chain := 0; p.skipName("if"); chain++ {
		if chain > maxChain {
			return nil, p.errorf(p.peek().line, "too many conditions in one expression")
		}
		p.soft++
		c := &condExpr{a: e}
		c.test, err = p.operand(bindOr)
		if err == nil && p.skipName("else") {
			c.b, err = p.expression()
		}
		p.soft--
		if err != nil {
			return nil, err
		}
		e = c
	}
	return e, nil
}

// operand parses an expression of operators that bind at least as tight as
// power.
func (p *parser) operand(power int) (expr, error) {
	leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var left expr
	if power <= bindNot && p.isName("not") {
		p.next()
		if left, err = p.operand(bindNot); err == nil {
			left = &notExpr{left}
		}
	} else {
		left, err = p.unary(true)
	}
	if err != nil {
		return nil, err
	}
	for chain := 0; ; chain++ {
		have, op, tokens := p.infix()
		if tokens == 0 || have < power {
			return left, nil
		}
		if chain > maxChain {
			return nil, p.errorf(p.peek().line, "too many operators in one expression")
		}
		line := p.peek().line
		p.pos += tokens
		right, err := p.operand(have + 1)
		if err != nil {
			return nil, err
		}
		left = combine(line, have, op, left, right)
	}
}

// combine makes the node of a binary operator.
func combine(line, power int, op string, left, right expr) expr {
	switch power {
	case bindOr, bindAnd:
		return &boolExpr{or: power == bindOr, a: left, b: right}
	case bindCompare:
		if c, ok := left.(*compareExpr); ok && !c.closed {
			c.ops = append(c.ops, compareOp{op, right})
			return c
		}
		return &compareExpr{line: line, first: left, ops: []compareOp{{op, right}}}
	case bindConcat:
		if c, ok := left.(*concatExpr); ok && !c.closed {
			c.parts = append(c.parts, right)
			return c
		}
		return &concatExpr{line: line, parts: []expr{left, right}}
	}
	return &binaryExpr{line: line, op: op, a: left, b: right}
}

// unary parses a sign or a primary with what follows it; filters and tests only
// when asked, because -x|f is (-x)|f.
func (p *parser) unary(filters bool) (expr, error) {
	leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var e expr
	if t := p.peek(); p.isOp("-") || p.isOp("+") {
		p.next()
		if e, err = p.unary(false); err == nil {
			e = &unaryExpr{line: t.line, minus: t.text == "-", e: e}
		}
	} else {
		e, err = p.primary()
	}
	if err != nil {
		return nil, err
	}
	if e, err = p.postfix(e); err != nil || !filters {
		return e, err
	}
	return p.filters(e)
}

func (p *parser) primary() (expr, error) {
	t := p.peek()
	switch t.kind {
	case tokName:
		p.next()
		switch t.text {
		case "true", "True":
			return &constExpr{true}, nil
		case "false", "False":
			return &constExpr{false}, nil
		case "none", "None":
			return &constExpr{None}, nil
		}
		p.use(t.text)
		return &nameExpr{p.symbol(t.text), t.text}, nil
	case tokString:
		s := ""
		for p.peek().kind == tokString {
			s += p.next().text
		}
		return &constExpr{s}, nil
	case tokNumber:
		p.next()
		return &constExpr{t.value}, nil
	case tokOp:
		switch t.text {
		case "(":
			p.next()
			e, err := p.group()
			if err != nil {
				return nil, err
			}
			return e, p.expectOp(")")
		case "[":
			p.next()
			items, err := p.listItems()
			return &listExpr{items: items}, err
		case "{":
			p.next()
			return p.dict()
		}
	}
	return nil, p.errorf(t.line, "unexpected %s", t.describe())
}

// group parses the inside of parentheses: an expression or a tuple.
func (p *parser) group() (expr, error) {
	if p.isOp(")") {
		return &listExpr{tuple: true}, nil
	}
	e, err := p.tuple(true)
	switch e := e.(type) {
	case *compareExpr:
		e.closed = true
	case *concatExpr:
		e.closed = true
	}
	return e, err
}

// tuple parses an expression, or a tuple without parentheses. Without cond the
// items have no inline if. A tuple ends before a name of ends.
func (p *parser) tuple(cond bool, ends ...string) (expr, error) {
	var items []expr
	isTuple := false
	for {
		if len(items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		if p.tupleEnd(ends) {
			break
		}
		var e expr
		var err error
		if cond {
			e, err = p.expression()
		} else {
			e, err = p.operand(bindOr)
		}
		if err != nil {
			return nil, err
		}
		items = append(items, e)
		if !p.isOp(",") {
			break
		}
		isTuple = true
	}
	if isTuple {
		return &listExpr{items: items, tuple: true}, nil
	}
	if len(items) == 0 {
		return nil, p.unexpected("an expression")
	}
	return items[0], nil
}

func (p *parser) listItems() ([]expr, error) {
	var items []expr
	for !p.isOp("]") {
		if len(items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
			if p.isOp("]") {
				break
			}
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		items = append(items, e)
	}
	return items, p.expectOp("]")
}

func (p *parser) dict() (expr, error) {
	d := &dictExpr{}
	for !p.isOp("}") {
		if len(d.keys) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
			if p.isOp("}") {
				break
			}
		}
		k, err := p.expression()
		if err != nil {
			return nil, err
		}
		if err := p.expectOp(":"); err != nil {
			return nil, err
		}
		v, err := p.expression()
		if err != nil {
			return nil, err
		}
		d.keys, d.values = append(d.keys, k), append(d.values, v)
	}
	return d, p.expectOp("}")
}

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
		bad := false
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
