package jinja

import (
	"fmt"
	"math/big"
)

// test is a function behind is.
type test func(st *state, v Value, a *args) (bool, error)

// tests by name. It is filled in init because the test "test" refers to it.
var tests map[string]test

func init() {
	tests = map[string]test{
		"odd":         remainder("odd", 2, 1),
		"even":        remainder("even", 2, 0),
		"divisibleby": testDivisibleBy,
		"defined":     plainTest(func(v Value) bool { return !isUndefined(v) }),
		"undefined":   plainTest(isUndefined),
		"filter":      plainTest(func(v Value) bool { s, ok := text(v); return ok && filters[s] != nil }),
		"test":        plainTest(func(v Value) bool { s, ok := text(v); return ok && tests[s] != nil }),
		"none":        plainTest(func(v Value) bool { return v == Value(None) }),
		"boolean":     plainTest(func(v Value) bool { _, ok := v.(bool); return ok }),
		"false":       plainTest(func(v Value) bool { return v == Value(false) }),
		"true":        plainTest(func(v Value) bool { return v == Value(true) }),
		"integer":     plainTest(isInteger),
		"float":       plainTest(isFloat),
		"number":      plainTest(func(v Value) bool { _, ok := isNumber(v); return ok }),
		"string":      plainTest(func(v Value) bool { _, ok := text(v); return ok }),
		"mapping":     plainTest(func(v Value) bool { _, ok := v.(*Dict); return ok }),
		"sequence":    plainTest(isSequence),
		"iterable":    plainTest(func(v Value) bool { _, err := iterate(v); _, loop := v.(*loopContext); return err == nil || loop }),
		"callable":    plainTest(isCallable),
		"escaped":     plainTest(func(v Value) bool { _, ok := v.(Markup); return ok }),
		"lower":       caseTest(isLower, isUpper),
		"upper":       caseTest(isUpper, isLower),
		"sameas":      testSameAs,
		"in":          testIn,
	}
	for op, names := range map[string][]string{
		"==": {"==", "eq", "equalto"}, "!=": {"!=", "ne"}, ">": {">", "gt", "greaterthan"},
		">=": {">=", "ge"}, "<": {"<", "lt", "lessthan"}, "<=": {"<=", "le"},
	} {
		for _, name := range names {
			tests[name] = compareTest(name, op)
		}
	}
}

func plainTest(f func(Value) bool) test {
	return func(_ *state, v Value, a *args) (bool, error) {
		_, err := a.positional("test", 0, 0)
		return f(v), err
	}
}

func isUndefined(v Value) bool {
	_, ok := v.(*undefined)
	return ok
}

func isInteger(v Value) bool {
	switch v.(type) {
	case int64, *big.Int:
		return true
	}
	return false
}

func isSequence(v Value) bool {
	switch v.(type) {
	case string, Markup, *List, *Tuple, *Dict, rangeValue, *undefined:
		return true
	}
	return false
}

func isCallable(v Value) bool {
	switch v.(type) {
	case *function, *macro, *loopContext, *undefined:
		return true
	}
	return false
}

func remainder(name string, by, want int64) test {
	return func(st *state, v Value, a *args) (bool, error) {
		if _, err := a.positional(name, 0, 0); err != nil {
			return false, err
		}
		return hasRemainder(st, v, by, want)
	}
}

func hasRemainder(st *state, v, by Value, want int64) (bool, error) {
	if n, ok := v.(*big.Int); ok {
		if d, ok := isInt(by); ok && d != 0 {
			return new(big.Int).Mod(n, new(big.Int).Abs(big.NewInt(d))).Int64() == want, nil
		}
	}
	r, err := binary(st, "%", v, by)
	if err != nil {
		return false, err
	}
	return equal(st, r, want)
}

func testDivisibleBy(st *state, v Value, a *args) (bool, error) {
	p, err := a.bind("divisibleby", 1, "num")
	if err != nil {
		return false, err
	}
	return hasRemainder(st, v, p[0], 0)
}

func caseTest(want, other func(rune) bool) test {
	return func(st *state, v Value, a *args) (bool, error) {
		if _, err := a.positional("test", 0, 0); err != nil {
			return false, err
		}
		s, err := str(st, v)
		if err != nil {
			return false, err
		}
		return hasCase(s, want, other), st.scan(len(s))
	}
}

// testSameAs compares identity. Equal text and numbers count as the same, which
// in Python depends on the interpreter.
func testSameAs(_ *state, v Value, a *args) (bool, error) {
	p, err := a.bind("sameas", 1, "other")
	if err != nil {
		return false, err
	}
	return v == p[0], nil
}

func testIn(st *state, v Value, a *args) (bool, error) {
	p, err := a.bind("in", 1, "seq")
	if err != nil {
		return false, err
	}
	return contains(st, v, p[0])
}

func compareTest(name, op string) test {
	return func(st *state, v Value, a *args) (bool, error) {
		p, err := a.positional(name, 1, 1)
		if err != nil {
			return false, fmt.Errorf("test: %w", err)
		}
		return compare(st, op, v, p[0])
	}
}
