package jinja

import (
	"slices"
)

// statement parses the statement of the tag name.
func (p *parser) statement(name token) ([]stmt, error) {
	p.open = append(p.open, name.text)
	defer func() { p.open = p.open[:len(p.open)-1] }()
	one := func(s stmt, err error) ([]stmt, error) { return []stmt{s}, err }
	switch name.text {
	case "for":
		return one(p.forStmt(name.line))
	case "if":
		return one(p.ifStmt(name.line))
	case "set":
		return one(p.setStmt(name.line))
	case "macro":
		return one(p.macroStmt(name.line))
	case "call":
		return one(p.callStmt(name.line))
	case "filter":
		return one(p.filterStmt(name.line))
	case "with":
		return one(p.withStmt(name.line))
	case "generation":
		return one(p.generationStmt())
	case "print":
		return p.printStmt(name.line)
	case "break", "continue":
		if p.loops == 0 {
			return nil, p.errorf(name.line, "'%s' outside of a loop", name.text)
		}
		if name.text == "break" {
			return []stmt{&controlStmt{controlBreak}}, nil
		}
		return []stmt{&controlStmt{controlContinue}}, nil
	case "include", "import", "from", "extends", "block", "autoescape":
		return nil, p.errorf(name.line, "the tag '%s' is not supported: a chat template is one file", name.text)
	}
	return nil, p.errorf(name.line, "unknown tag '%s'", name.text)
}

func (p *parser) printStmt(line int) ([]stmt, error) {
	var out []stmt
	for p.peek().kind != tokBlockEnd {
		if len(out) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		out = append(out, &outputStmt{line, e})
	}
	return out, nil
}

func (p *parser) ifStmt(line int) (stmt, error) {
	s := &ifStmt{line: line}
	p.soft++
	defer func() { p.soft-- }()
	for {
		test, err := p.tuple(false)
		if err != nil {
			return nil, err
		}
		body, end, err := p.block("elif", "else", "endif")
		if err != nil {
			return nil, err
		}
		s.branches = append(s.branches, branch{test, body})
		if end == "else" {
			if s.other, _, err = p.block("endif"); err != nil {
				return nil, err
			}
		}
		if end != "elif" {
			return s, nil
		}
	}
}

// withUses runs f and returns the names that were read meanwhile. They also
// count as read by what is around.
func (p *parser) withUses(f func() error) (map[string]bool, error) {
	used := map[string]bool{}
	p.uses = append(p.uses, used)
	err := f()
	p.uses = p.uses[:len(p.uses)-1]
	if n := len(p.uses); n > 0 {
		for name := range used {
			p.uses[n-1][name] = true
		}
	}
	return used, err
}

func (p *parser) forStmt(line int) (stmt, error) {
	s := &forStmt{line: line, loop: -1}
	p.inFor++
	defer func() { p.inFor-- }()
	var err error
	if s.target, err = p.target(false, "in"); err != nil {
		return nil, err
	}
	if !p.skipName("in") {
		return nil, p.unexpected("'in'")
	}
	if s.iter, err = p.tuple(false, "recursive"); err != nil {
		return nil, err
	}
	if p.skipName("if") {
		if s.test, err = p.expression(); err != nil {
			return nil, err
		}
	}
	s.recursive = p.skipName("recursive")
	var end string
	p.loops++
	used, err := p.withUses(func() (err error) {
		s.body, end, err = p.block("endfor", "else")
		return err
	})
	p.loops--
	if err != nil {
		return nil, err
	}
	if used["loop"] || s.recursive {
		s.loop = p.symbol("loop")
	}
	if end == "else" {
		if s.recursive {
			loops := p.loops
			p.loops = 0 // the else body of a recursive loop is in no other loop
			defer func() { p.loops = loops }()
		}
		s.other, _, err = p.block("endfor")
	}
	return s, err
}

// target parses what is assigned to. Attributes of namespaces are allowed when
// attrs is set. The target ends before the name end, if one is given.
func (p *parser) target(attrs bool, end ...string) (target, error) {
	t := target{line: p.peek().line}
	for {
		if len(t.items) > 0 {
			if err := p.expectOp(","); err != nil {
				return t, err
			}
		}
		if p.tupleEnd(end) {
			break
		}
		one, err := p.oneTarget(attrs)
		if err != nil {
			return t, err
		}
		t.items = append(t.items, one)
		if !p.isOp(",") {
			break
		}
		t.tuple = true
	}
	if !t.tuple {
		if len(t.items) == 0 {
			return t, p.unexpected("a name to assign to")
		}
		return t.items[0], nil
	}
	return t, nil
}

// oneTarget parses a name, an attribute or a tuple in parentheses.
func (p *parser) oneTarget(attrs bool) (target, error) {
	line := p.peek().line
	if p.skipOp("(") {
		leave, err := p.enter()
		if err != nil {
			return target{}, err
		}
		defer leave()
		if p.skipOp(")") {
			return target{line: line, tuple: true}, nil
		}
		t, err := p.target(false)
		if err != nil {
			return t, err
		}
		return t, p.expectOp(")")
	}
	name, err := p.expectName()
	if err != nil {
		return target{}, err
	}
	t := target{line: line}
	if attrs && p.skipOp(".") {
		attr, err := p.expectName()
		if err != nil {
			return t, err
		}
		p.use(name.text)
		t.sym, t.attr = p.symbol(name.text), attr.text
		return t, nil
	}
	if slices.Contains(constantNames, name.text) {
		return t, p.errorf(line, "cannot assign to '%s'", name.text)
	}
	if name.text == "loop" && p.inFor > 0 {
		return t, p.errorf(line, "cannot assign to the special variable 'loop' in a loop")
	}
	t.sym = p.symbol(name.text)
	return t, nil
}

func (p *parser) setStmt(line int) (stmt, error) {
	t, err := p.target(true)
	if err != nil {
		return nil, err
	}
	if p.skipOp("=") {
		e, err := p.tuple(true)
		return &setStmt{line, t, e}, err
	}
	s := &setBlockStmt{line: line, target: t}
	for p.skipOp("|") {
		f, err := p.filter(nil)
		if err != nil {
			return nil, err
		}
		s.filters = append(s.filters, f)
	}
	s.body, _, err = p.block("endset")
	return s, err
}

func (p *parser) filterStmt(line int) (stmt, error) {
	s := &filterStmt{line: line}
	for {
		f, err := p.filter(nil)
		if err != nil {
			return nil, err
		}
		s.filters = append(s.filters, f)
		if !p.skipOp("|") {
			break
		}
	}
	var err error
	s.body, _, err = p.block("endfilter")
	return s, err
}

func (p *parser) withStmt(line int) (stmt, error) {
	s := &withStmt{line: line}
	inFor := p.inFor
	p.inFor = 0 // loop may be the name of a with variable
	defer func() { p.inFor = inFor }()
	for p.peek().kind != tokBlockEnd {
		if len(s.targets) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		t, err := p.target(false)
		if err != nil {
			return nil, err
		}
		if err := p.expectOp("="); err != nil {
			return nil, err
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		s.targets, s.values = append(s.targets, t), append(s.values, e)
	}
	p.inFor = inFor
	var err error
	s.body, _, err = p.block("endwith")
	return s, err
}

func (p *parser) generationStmt() (stmt, error) {
	body, err := p.closed(func() ([]stmt, error) {
		body, _, err := p.block("endgeneration")
		return body, err
	})
	return &scopeStmt{body}, err
}

// closed parses a body that break and continue cannot leave.
func (p *parser) closed(f func() ([]stmt, error)) ([]stmt, error) {
	loops := p.loops
	p.loops = 0
	defer func() { p.loops = loops }()
	return f()
}

func (p *parser) macroStmt(line int) (stmt, error) {
	name, err := p.expectName()
	if err != nil {
		return nil, err
	}
	if slices.Contains(constantNames, name.text) {
		return nil, p.errorf(name.line, "cannot assign to '%s'", name.text)
	}
	def := &macroDef{name: name.text}
	if !p.isOp("(") {
		return nil, p.unexpected("'('")
	}
	if err := p.signature(def); err != nil {
		return nil, err
	}
	return &macroStmt{p.symbol(name.text), def}, p.macroBody(line, def, "endmacro")
}

func (p *parser) callStmt(line int) (stmt, error) {
	def := &macroDef{}
	if p.isOp("(") {
		if err := p.signature(def); err != nil {
			return nil, err
		}
	}
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	c, ok := e.(*callExpr)
	if !ok {
		return nil, p.errorf(line, "a call block needs a call")
	}
	return &callStmt{line, c, def}, p.macroBody(line, def, "endcall")
}

// signature parses the parameters of a macro or call block.
func (p *parser) signature(def *macroDef) error {
	p.next() // the parenthesis
	for !p.isOp(")") {
		if len(def.params) > 0 {
			if err := p.expectOp(","); err != nil {
				return err
			}
		}
		name, err := p.expectName()
		if err != nil {
			return err
		}
		if slices.Contains(constantNames, name.text) || slices.Contains(def.params, name.text) {
			return p.errorf(name.line, "'%s' cannot be a parameter here", name.text)
		}
		def.params = append(def.params, name.text)
		def.syms = append(def.syms, p.symbol(name.text))
		if p.skipOp("=") {
			e, err := p.expression()
			if err != nil {
				return err
			}
			def.defaults = append(def.defaults, e)
		} else if len(def.defaults) > 0 {
			return p.errorf(name.line, "a parameter without default follows one with a default")
		}
	}
	p.next()
	return nil
}

// macroBody parses the body and finds which special variables it uses.
func (p *parser) macroBody(line int, def *macroDef, end string) error {
	used, err := p.withUses(func() (err error) {
		def.body, err = p.closed(func() ([]stmt, error) {
			body, _, err := p.block(end)
			return body, err
		})
		return err
	})
	if err != nil {
		return err
	}
	special := func(name string) int {
		if used[name] && !slices.Contains(def.params, name) {
			return p.symbol(name)
		}
		return -1
	}
	def.caller, def.kwargs, def.varargs = special("caller"), special("kwargs"), special("varargs")
	if i := slices.Index(def.params, "caller"); used["caller"] && i >= 0 && i < len(def.params)-len(def.defaults) {
		return p.errorf(line, "a 'caller' parameter needs a default")
	}
	return nil
}

// constantNames are names with fixed values.
var constantNames = []string{"true", "false", "none", "True", "False", "None"}

// tupleEnd says that no further item of a tuple without parentheses follows.
func (p *parser) tupleEnd(ends []string) bool {
	t := p.peek()
	switch t.kind {
	case tokVarEnd, tokBlockEnd:
		return true
	case tokOp:
		return t.text == ")"
	case tokName:
		return slices.Contains(ends, t.text)
	}
	return false
}
