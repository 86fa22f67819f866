package jinja

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"strings"
)

// equal is Python's ==.
func equal(st *state, a, b Value) (bool, error) { return equalAt(st, a, b, 0) }

func equalAt(st *state, a, b Value, depth int) (bool, error) {
	if depth > maxNesting {
		return false, errNesting
	}
	if err := st.step(); err != nil {
		return false, err
	}
	switch x := a.(type) {
	case string, Markup:
		s, _ := text(a)
		t, ok := text(b)
		if !ok || len(s) != len(t) {
			return false, nil
		}
		return s == t, st.scan(len(s))
	case NoneType:
		return b == Value(None), nil
	case *undefined:
		_, ok := b.(*undefined)
		return ok, nil
	case *List:
		if y, ok := b.(*List); ok {
			return equalItems(st, x.Items, y.Items, depth+1)
		}
		return false, nil
	case *Tuple:
		if y, ok := b.(*Tuple); ok {
			return equalItems(st, x.Items, y.Items, depth+1)
		}
		return false, nil
	case *Dict:
		if y, ok := b.(*Dict); ok {
			return equalDicts(st, x, y, depth+1)
		}
		return false, nil
	case rangeValue:
		y, ok := b.(rangeValue)
		n := x.len()
		return ok && n == y.len() && (n == 0 || x.start == y.start && (n == 1 || x.step == y.step)), nil
	case int64, float64, bool, *big.Int:
		c, ok := compareNumbers(a, b)
		return ok && c == 0, nil
	case dictView:
		y, ok := b.(dictView)
		if !ok || x.kind == "values" || x.kind != y.kind {
			return false, nil // views of values compare by identity
		}
		if x.kind == "keys" {
			return equalKeys(x.dict, y.dict)
		}
		return equalDicts(st, x.dict, y.dict, depth+1)
	}
	return a == b, nil
}

func equalItems(st *state, a, b []Value, depth int) (bool, error) {
	if len(a) != len(b) {
		return false, nil
	}
	for i := range a {
		if same, err := equalAt(st, a[i], b[i], depth); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func equalDicts(st *state, a, b *Dict, depth int) (bool, error) {
	if a.Len() != b.Len() {
		return false, nil
	}
	for i, k := range a.keys {
		v, ok, err := b.lookup(k)
		if err != nil || !ok {
			return false, err
		}
		if same, err := equalAt(st, a.values[i], v, depth); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func equalKeys(a, b *Dict) (bool, error) {
	for _, k := range a.keys {
		if _, ok, err := b.lookup(k); err != nil || !ok {
			return false, err
		}
	}
	return a.Len() == b.Len(), nil
}

// unordered is the result of comparing with NaN: neither -1, 0 nor 1.
const unordered = 2

// compareNumbers compares numbers; ok is false when one is no number.
func compareNumbers(a, b Value) (c int, ok bool) {
	if x, ok := isInt(a); ok {
		if y, ok := isInt(b); ok {
			return cmp.Compare(x, y), true
		}
	}
	x, okX := exact(a)
	y, okY := exact(b)
	switch {
	case !okX || !okY:
		return 0, false
	case x != nil && y != nil:
		return x.Cmp(y), true
	}
	// Infinity or NaN.
	f, _ := isNumber(a)
	g, _ := isNumber(b)
	if math.IsNaN(f) || math.IsNaN(g) {
		return unordered, true
	}
	return cmp.Compare(f, g), true
}

// exact returns a number without rounding: nil for infinities and NaN.
func exact(v Value) (*big.Float, bool) {
	switch n := v.(type) {
	case float64:
		if math.IsInf(n, 0) || math.IsNaN(n) {
			return nil, true
		}
		return big.NewFloat(n), true
	case *big.Int:
		return new(big.Float).SetInt(n), true
	}
	n, ok := isInt(v)
	return new(big.Float).SetInt64(n), ok
}

// order compares values that Python orders: numbers, strings, lists, tuples.
func order(st *state, op string, a, b Value) (int, error) { return orderAt(st, op, a, b, 0) }

func orderAt(st *state, op string, a, b Value, depth int) (int, error) {
	if depth > maxNesting {
		return 0, errNesting
	}
	if err := st.step(); err != nil {
		return 0, err
	}
	if c, ok := compareNumbers(a, b); ok {
		return c, nil
	}
	if s, ok := text(a); ok {
		if t, ok := text(b); ok {
			// The order of UTF-8 bytes is the order of code points.
			return strings.Compare(s, t), st.scan(min(len(s), len(t)))
		}
	}
	x, y, ok := sameSequences(a, b)
	if !ok {
		for _, v := range []Value{a, b} {
			if u, ok := v.(*undefined); ok {
				return 0, u.error()
			}
		}
		return 0, fmt.Errorf("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	}
	for i := range min(len(x), len(y)) {
		same, err := equalAt(st, x[i], y[i], depth+1)
		if err != nil {
			return 0, err
		}
		if !same {
			return orderAt(st, op, x[i], y[i], depth+1)
		}
	}
	return cmp.Compare(len(x), len(y)), nil
}

// sameSequences returns the items of two lists or two tuples.
func sameSequences(a, b Value) (x, y []Value, ok bool) {
	switch s := a.(type) {
	case *List:
		if t, ok := b.(*List); ok {
			return s.Items, t.Items, true
		}
	case *Tuple:
		if t, ok := b.(*Tuple); ok {
			return s.Items, t.Items, true
		}
	}
	return nil, nil, false
}

// compare evaluates a comparison operator other than in.
func compare(st *state, op string, a, b Value) (bool, error) {
	switch op {
	case "==":
		return equal(st, a, b)
	case "!=":
		same, err := equal(st, a, b)
		return !same, err
	}
	c, err := order(st, op, a, b)
	if err != nil || c == unordered {
		return false, err
	}
	switch op {
	case "<":
		return c < 0, nil
	case "<=":
		return c <= 0, nil
	case ">":
		return c > 0, nil
	}
	return c >= 0, nil
}

// contains is Python's in.
func contains(st *state, item, in Value) (bool, error) {
	switch c := in.(type) {
	case string, Markup:
		s, _ := text(in)
		sub, ok := text(item)
		if !ok {
			return false, fmt.Errorf("'in <string>' requires string as left operand, not %s", typeName(item))
		}
		return strings.Contains(s, sub), st.scan(len(s))
	case *Dict:
		_, ok, err := c.lookup(item)
		return ok, err
	case dictView:
		if c.kind == "keys" {
			_, ok, err := c.dict.lookup(item)
			return ok, err
		}
	}
	it, err := iterate(in)
	if err != nil {
		return false, fmt.Errorf("argument of type '%s' is not iterable", typeName(in))
	}
	for {
		v, ok, err := st.next(it)
		if err != nil || !ok {
			return false, err
		}
		if v == item && !isFloat(v) {
			return true, nil // Python's in compares identity first
		}
		if same, err := equal(st, v, item); err != nil || same {
			return same, err
		}
	}
}

func isFloat(v Value) bool {
	_, ok := v.(float64)
	return ok
}
