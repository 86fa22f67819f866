package jinja

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
