package jinja

// expr is a parsed expression.
type expr interface {
	eval(st *state) (Value, error)
}

var (
	_ expr = (*constExpr)(nil)
	_ expr = (*nameExpr)(nil)
	_ expr = (*listExpr)(nil)
	_ expr = (*dictExpr)(nil)
	_ expr = (*condExpr)(nil)
	_ expr = (*boolExpr)(nil)
	_ expr = (*notExpr)(nil)
	_ expr = (*compareExpr)(nil)
	_ expr = (*binaryExpr)(nil)
	_ expr = (*unaryExpr)(nil)
	_ expr = (*concatExpr)(nil)
	_ expr = (*attrExpr)(nil)
	_ expr = (*itemExpr)(nil)
	_ expr = (*sliceExpr)(nil)
	_ expr = (*callExpr)(nil)
	_ expr = (*filterExpr)(nil)
	_ expr = (*testExpr)(nil)
)

type constExpr struct{ value Value }

func (e *constExpr) eval(*state) (Value, error) { return e.value, nil }

type nameExpr struct {
	sym  int
	name string
}

func (e *nameExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	if v := st.get(e.sym); v != nil {
		return v, nil
	}
	return &undefined{name: e.name}, nil
}

// listExpr is a list, or a tuple.
type listExpr struct {
	items []expr
	tuple bool
}

func (e *listExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	items, err := evalAll(st, e.items)
	if err != nil {
		return nil, err
	}
	if e.tuple {
		return &Tuple{Items: items}, nil
	}
	return &List{Items: items}, nil
}

func evalAll(st *state, exprs []expr) ([]Value, error) {
	if len(exprs) == 0 {
		return nil, nil
	}
	if err := st.build(len(exprs) * valueBytes); err != nil {
		return nil, err
	}
	values := make([]Value, len(exprs))
	for i, e := range exprs {
		v, err := e.eval(st)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

type dictExpr struct{ keys, values []expr }

func (e *dictExpr) eval(st *state) (Value, error) {
	if err := st.build(len(e.keys) * 2 * valueBytes); err != nil {
		return nil, err
	}
	d := NewDict(len(e.keys))
	for i, k := range e.keys {
		key, err := k.eval(st)
		if err != nil {
			return nil, err
		}
		v, err := e.values[i].eval(st)
		if err != nil {
			return nil, err
		}
		if err := d.put(key, v); err != nil {
			return nil, err
		}
	}
	return d, st.step()
}

// condExpr is a if test else b; b may be nil.
type condExpr struct{ test, a, b expr }

func (e *condExpr) eval(st *state) (Value, error) {
	ok, err := evalTruth(st, e.test)
	switch {
	case err != nil:
		return nil, err
	case ok:
		return e.a.eval(st)
	case e.b == nil:
		return &undefined{hint: "the inline if-expression evaluated to false and no else section was defined"}, nil
	}
	return e.b.eval(st)
}

func evalTruth(st *state, e expr) (bool, error) {
	v, err := e.eval(st)
	if err != nil {
		return false, err
	}
	return truth(st, v)
}

// boolExpr is and, or or: its value is that of one operand.
type boolExpr struct {
	or   bool
	a, b expr
}

func (e *boolExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	a, err := e.a.eval(st)
	if err != nil {
		return nil, err
	}
	ok, err := truth(st, a)
	if err != nil {
		return nil, err
	}
	if ok == e.or {
		return a, nil
	}
	return e.b.eval(st)
}

type notExpr struct{ e expr }

func (e *notExpr) eval(st *state) (Value, error) {
	ok, err := evalTruth(st, e.e)
	return !ok, err
}

// compareExpr is a chain: a < b < c compares b with both.
type compareExpr struct {
	closed bool // in parentheses: a further operator makes a new node
	line   int
	first  expr
	ops    []compareOp
}

type compareOp struct {
	op string // ==, !=, <, <=, >, >=, in, not in
	e  expr
}

func (e *compareExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	a, err := e.first.eval(st)
	if err != nil {
		return nil, err
	}
	for _, op := range e.ops {
		b, err := op.e.eval(st)
		if err != nil {
			return nil, err
		}
		var ok bool
		switch op.op {
		case "in":
			ok, err = contains(st, a, b)
		case "not in":
			ok, err = contains(st, a, b)
			ok = !ok
		default:
			ok, err = compare(st, op.op, a, b)
		}
		if err != nil {
			return nil, at(e.line, err)
		}
		if !ok {
			return false, nil
		}
		a = b
	}
	return true, nil
}

type binaryExpr struct {
	line int
	op   string
	a, b expr
}

func (e *binaryExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	a, err := e.a.eval(st)
	if err != nil {
		return nil, err
	}
	b, err := e.b.eval(st)
	if err != nil {
		return nil, err
	}
	v, err := binary(st, e.op, a, b)
	if err != nil {
		return nil, at(e.line, err)
	}
	return v, nil
}

type unaryExpr struct {
	line  int
	minus bool
	e     expr
}

func (e *unaryExpr) eval(st *state) (Value, error) {
	v, err := e.e.eval(st)
	if err != nil {
		return nil, err
	}
	if e.minus {
		v, err = negate(v)
	} else {
		v, err = plus(v)
	}
	return v, at(e.line, err)
}

// concatExpr is a ~ b ~ c.
type concatExpr struct {
	closed bool // in parentheses: a further ~ makes a new node
	line   int
	parts  []expr
}

func (e *concatExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	parts := make([]string, len(e.parts))
	for i, p := range e.parts {
		v, err := p.eval(st)
		if err != nil {
			return nil, err
		}
		if parts[i], err = str(st, v); err != nil {
			return nil, at(e.line, err)
		}
	}
	v, err := joinTexts(st, parts, "")
	return v, at(e.line, err)
}

// attrExpr is e.name.
type attrExpr struct {
	line int
	e    expr
	name string
}

func (e *attrExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	v, err := e.e.eval(st)
	if err != nil {
		return nil, err
	}
	v, err = getAttr(st, v, e.name)
	return v, at(e.line, err)
}

// itemExpr is e[key].
type itemExpr struct {
	line   int
	e, key expr
}

func (e *itemExpr) eval(st *state) (Value, error) {
	v, err := e.e.eval(st)
	if err != nil {
		return nil, err
	}
	key, err := e.key.eval(st)
	if err != nil {
		return nil, err
	}
	v, err = getItem(st, v, key)
	return v, at(e.line, err)
}

// sliceExpr is e[start:stop:step]; what is not given is nil.
type sliceExpr struct {
	line                 int
	e, start, stop, step expr
}

func (e *sliceExpr) eval(st *state) (Value, error) {
	if err := st.step(); err != nil {
		return nil, err
	}
	v, err := e.e.eval(st)
	if err != nil {
		return nil, err
	}
	var bounds [3]Value
	for i, b := range []expr{e.start, e.stop, e.step} {
		if b != nil {
			if bounds[i], err = b.eval(st); err != nil {
				return nil, err
			}
		}
	}
	v, err = slice(st, v, bounds[0], bounds[1], bounds[2])
	return v, at(e.line, err)
}
