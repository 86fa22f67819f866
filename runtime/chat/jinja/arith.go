package jinja

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strings"
)

var (
	errOverflow = errors.New("an integer does not fit in 64 bits")
	errZero     = errors.New("division by zero")
)

// binary evaluates an arithmetic operator.
func binary(st *state, op string, a, b Value) (Value, error) {
	for _, v := range []Value{a, b} {
		if u, ok := v.(*undefined); ok {
			// A string formats an undefined value like any other.
			if s, isText := text(a); op == "%" && isText {
				return formatPercent(st, s, b)
			}
			return nil, u.error()
		}
	}
	if x, ok := isInt(a); ok {
		if y, ok := isInt(b); ok {
			return intOp(op, x, y)
		}
	}
	switch a.(type) {
	case string, Markup, *List, *Tuple:
		if v, err, ok := sequenceOp(st, op, a, b); ok {
			return v, err
		}
	}
	if op == "*" {
		if _, ok := isInt(a); ok {
			switch b.(type) {
			case string, Markup, *List, *Tuple:
				return repeat(st, b, a)
			}
		}
	}
	x, okX := isNumber(a)
	y, okY := isNumber(b)
	if !okX || !okY {
		return nil, fmt.Errorf("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
	}
	if !isFloat(a) && !isFloat(b) {
		return nil, errOverflow // long integers are carried, not computed with
	}
	return floatOp(op, x, y)
}

// sequenceOp evaluates the operators of strings, lists and tuples; ok is false
// when there is none for these operands.
func sequenceOp(st *state, op string, a, b Value) (v Value, err error, ok bool) {
	switch op {
	case "*":
		if _, isInteger := isInt(b); isInteger {
			v, err = repeat(st, a, b)
			return v, err, true
		}
	case "%":
		switch s := a.(type) {
		case string:
			v, err = formatPercent(st, s, b)
			return v, err, true
		case Markup:
			return nil, errors.New("formatting marked text is not supported"), true
		}
	case "+":
		if s, isText := text(a); isText {
			if t, isText := text(b); isText {
				v, err = concat(st, a, b, s, t)
				return v, err, true
			}
		}
		if x, y, same := sameSequences(a, b); same {
			if err = st.build((len(x) + len(y)) * valueBytes); err != nil {
				return nil, err, true
			}
			items := append(append(make([]Value, 0, len(x)+len(y)), x...), y...)
			if _, isTuple := a.(*Tuple); isTuple {
				return &Tuple{Items: items}, nil, true
			}
			return &List{Items: items}, nil, true
		}
	}
	return nil, nil, false
}

// concat adds two texts; when one is marked the other is escaped.
func concat(st *state, a, b Value, s, t string) (Value, error) {
	_, markedA := a.(Markup)
	_, markedB := b.(Markup)
	var err error
	if markedB && !markedA {
		s, err = escapeHTML(st, s)
	}
	if markedA && !markedB {
		t, err = escapeHTML(st, t)
	}
	if err != nil {
		return nil, err
	}
	if err := st.build(len(s) + len(t)); err != nil {
		return nil, err
	}
	if markedA || markedB {
		return Markup(s + t), nil
	}
	return s + t, nil
}

// repeat is seq * n.
func repeat(st *state, seq, count Value) (Value, error) {
	n, _ := isInt(count)
	n = max(n, 0)
	size := func(one int) error {
		if hi, lo := bits.Mul64(uint64(one), uint64(n)); hi != 0 || lo > math.MaxInt32 {
			return errBytes
		}
		return st.build(one * int(n))
	}
	if s, ok := text(seq); ok {
		if err := size(len(s)); err != nil {
			return nil, err
		}
		if len(s) == 0 {
			return seq, nil
		}
		return likeText(seq, strings.Repeat(s, int(n))), nil
	}
	var items []Value
	tuple, isTuple := seq.(*Tuple)
	if isTuple {
		items = tuple.Items
	} else {
		items = seq.(*List).Items
	}
	if err := size(len(items) * valueBytes); err != nil {
		return nil, err
	}
	out := make([]Value, 0, len(items)*int(n))
	if len(items) > 0 {
		for range n {
			out = append(out, items...)
		}
	}
	if isTuple {
		return &Tuple{Items: out}, nil
	}
	return &List{Items: out}, nil
}

// likeText returns s as the kind of text that v is.
func likeText(v Value, s string) Value {
	if _, ok := v.(Markup); ok {
		return Markup(s)
	}
	return s
}

func intOp(op string, a, b int64) (Value, error) {
	switch op {
	case "+":
		c := a + b
		if (c > a) != (b > 0) && b != 0 {
			return nil, errOverflow
		}
		return c, nil
	case "-":
		c := a - b
		if (c < a) != (b > 0) && b != 0 {
			return nil, errOverflow
		}
		return c, nil
	case "*":
		c, ok := mul(a, b)
		if !ok {
			return nil, errOverflow
		}
		return c, nil
	case "/":
		if b == 0 {
			return nil, errZero
		}
		if a == 0 {
			return floatOp(op, 0, float64(b)) // the sign of the zero
		}
		f, _ := new(big.Rat).SetFrac(big.NewInt(a), big.NewInt(b)).Float64()
		return f, nil
	case "//", "%":
		if b == 0 {
			return nil, errZero
		}
		if b == -1 {
			if op == "%" {
				return int64(0), nil
			}
			return intOp("-", 0, a)
		}
		q, r := a/b, a%b
		if r != 0 && (r < 0) != (b < 0) {
			q, r = q-1, r+b // round towards minus infinity
		}
		if op == "%" {
			return r, nil
		}
		return q, nil
	}
	return intPow(a, b)
}

func mul(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	c := a * b
	if c/b != a || a == -1 && b == math.MinInt64 || b == -1 && a == math.MinInt64 {
		return 0, false
	}
	return c, true
}

func intPow(base, exp int64) (Value, error) {
	if exp < 0 {
		if base == 0 {
			return nil, errors.New("0.0 cannot be raised to a negative power")
		}
		return math.Pow(float64(base), float64(exp)), nil
	}
	switch {
	case exp == 0 || base == 1:
		return int64(1), nil
	case base == 0:
		return int64(0), nil
	case base == -1:
		return 1 - 2*(exp&1), nil
	}
	r := int64(1)
	for range exp { // at most 64 rounds: the base is 2 or more
		var ok bool
		if r, ok = mul(r, base); !ok {
			return nil, errOverflow
		}
	}
	return r, nil
}

func floatOp(op string, a, b float64) (Value, error) {
	switch op {
	case "+":
		return a + b, nil
	case "-":
		return a - b, nil
	case "*":
		return a * b, nil
	case "/":
		if b == 0 {
			return nil, errZero
		}
		return a / b, nil
	case "//", "%":
		if b == 0 {
			return nil, errZero
		}
		div, mod := floatDivMod(a, b)
		if op == "%" {
			return mod, nil
		}
		return div, nil
	}
	switch {
	case a == 0 && b < 0:
		return nil, errors.New("0.0 cannot be raised to a negative power")
	case a < 0 && !math.IsInf(a, 0) && b != math.Trunc(b) && !math.IsInf(b, 0) && !math.IsNaN(b):
		return nil, errors.New("complex numbers are not supported")
	}
	f := math.Pow(a, b)
	if math.IsInf(f, 0) && !math.IsInf(a, 0) && !math.IsInf(b, 0) {
		return nil, errors.New("numerical result out of range")
	}
	return f, nil
}

// floatDivMod is Python's divmod for floats: the remainder has the sign of b.
func floatDivMod(a, b float64) (div, mod float64) {
	mod = math.Mod(a, b)
	div = (a - mod) / b
	if mod != 0 {
		if (b < 0) != (mod < 0) {
			mod += b
			div--
		}
	} else {
		mod = math.Copysign(0, b)
	}
	if div == 0 {
		return math.Copysign(0, a/b), mod
	}
	floor := math.Floor(div)
	if div-floor > 0.5 {
		floor++
	}
	return floor, mod
}

// negate and plus are the unary operators.
func negate(v Value) (Value, error) {
	if n, ok := isInt(v); ok {
		return intOp("-", 0, n)
	}
	switch n := v.(type) {
	case float64:
		return -n, nil
	case *big.Int:
		return normalizeBig(new(big.Int).Neg(n)), nil
	case *undefined:
		return nil, n.error()
	}
	return nil, fmt.Errorf("bad operand type for unary -: '%s'", typeName(v))
}

func plus(v Value) (Value, error) {
	if n, ok := isInt(v); ok {
		return n, nil
	}
	switch n := v.(type) {
	case float64, *big.Int:
		return v, nil
	case *undefined:
		return nil, n.error()
	}
	return nil, fmt.Errorf("bad operand type for unary +: '%s'", typeName(v))
}
