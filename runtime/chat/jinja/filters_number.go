package jinja

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

func filterAbs(_ *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("abs", 0); err != nil {
		return nil, err
	}
	if n, ok := isInt(v); ok {
		if n < 0 {
			return negate(n)
		}
		return n, nil
	}
	switch n := v.(type) {
	case float64:
		return math.Abs(n), nil
	case *big.Int:
		return new(big.Int).Abs(n), nil
	case *undefined:
		return nil, n.error()
	}
	return nil, fmt.Errorf("bad operand type for abs(): '%s'", typeName(v))
}

func filterRound(_ *state, v Value, a *args) (Value, error) {
	p, err := a.bind("round", 0, "precision", "method")
	if err != nil {
		return nil, err
	}
	precision, err := needInt(p[0], 0)
	if err != nil {
		return nil, err
	}
	if precision < -maxRound || precision > maxRound {
		return nil, errors.New("the precision of round is out of range")
	}
	method := "common"
	if p[1] != nil {
		method, _ = text(p[1])
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.error()
	}
	x, ok := isNumber(v)
	if !ok {
		return nil, fmt.Errorf("type %s cannot be rounded", typeName(v))
	}
	switch method {
	case "common":
		if n, ok := isInt(v); ok {
			return roundInt(n, precision)
		}
		if n, ok := v.(*big.Int); ok && precision >= 0 {
			return n, nil
		}
		return roundFloat(x, precision), nil
	case "ceil", "floor":
		f := math.Ceil
		if method == "floor" {
			f = math.Floor
		}
		scale := math.Pow(10, float64(precision))
		r := f(x * scale)
		if math.IsInf(r, 0) || math.IsNaN(r) {
			return nil, errors.New("cannot round infinity or NaN")
		}
		return r / scale, nil
	}
	return nil, errors.New("the method of round must be common, ceil or floor")
}

// maxRound bounds the digits to round to: no float has more.
const maxRound = 400

// roundFloat rounds to digits after the point; ties go to the even digit, as the
// exact value of the float decides.
func roundFloat(x float64, digits int) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) || digits > 323 {
		return x
	}
	if digits >= 0 {
		r, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'f', digits, 64), 64)
		return r
	}
	scale := math.Pow(10, float64(-digits))
	if math.IsInf(scale, 0) {
		return math.Copysign(0, x)
	}
	return math.RoundToEven(x/scale) * scale
}

// roundInt rounds to tens, hundreds and so on for negative digits.
func roundInt(n int64, digits int) (Value, error) {
	if digits >= 0 {
		return n, nil
	}
	if digits < -18 {
		return int64(0), nil
	}
	unit := int64(1)
	for range -digits {
		unit *= 10
	}
	floor := n - ((n%unit)+unit)%unit
	rest := n - floor
	if rest > unit-rest || rest == unit-rest && (floor/unit)%2 != 0 {
		return intOp("+", floor, unit)
	}
	return floor, nil
}

func filterInt(_ *state, v Value, a *args) (Value, error) {
	p, err := a.bind("int", 0, "default", "base")
	if err != nil {
		return nil, err
	}
	base, err := needInt(p[1], 10)
	if err != nil {
		return nil, err
	}
	unset := p[0]
	if unset == nil {
		unset = int64(0)
	}
	switch n := v.(type) {
	case int64, *big.Int:
		return n, nil
	case bool:
		i, _ := isInt(n)
		return i, nil
	case float64:
		if math.IsInf(n, 0) {
			return nil, errors.New("cannot convert float infinity to integer")
		}
		if math.IsNaN(n) {
			return unset, nil
		}
		return truncate(n)
	case *undefined:
		return nil, n.error()
	}
	s, ok := text(v)
	if !ok {
		return unset, nil
	}
	if i, ok := pythonInt(s, base); ok {
		return i, nil
	}
	if f, ok := pythonFloat(s); ok && !math.IsInf(f, 0) && !math.IsNaN(f) {
		return truncate(f)
	}
	return unset, nil
}

func filterFloat(_ *state, v Value, a *args) (Value, error) {
	p, err := a.bind("float", 0, "default")
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.error()
	}
	if f, ok := isNumber(v); ok {
		if math.IsInf(f, 0) && !isFloat(v) {
			return nil, errors.New("int too large to convert to float")
		}
		return f, nil
	}
	if s, ok := text(v); ok {
		if f, ok := pythonFloat(s); ok {
			return f, nil
		}
	}
	if p[0] == nil {
		return 0.0, nil
	}
	return p[0], nil
}

// plainNumber removes the blanks around a number and the underscores between its
// digits; ok is false when an underscore is elsewhere.
func plainNumber(s string) (plain string, ok bool) {
	s = strings.TrimFunc(s, isSpace)
	for i := range len(s) {
		if s[i] == '_' && (i == 0 || i+1 == len(s) || !isHex(s[i-1]) && !strings.ContainsRune("xXoObB", rune(s[i-1])) || !isHex(s[i+1])) {
			return "", false
		}
	}
	return strings.ReplaceAll(s, "_", ""), true
}

// pythonInt is int(s, base).
func pythonInt(s string, base int) (Value, bool) {
	s, ok := plainNumber(s)
	if !ok || base != 0 && (base < 2 || base > 36) {
		return nil, false
	}
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = s[:1], s[1:]
	}
	if len(s) > 2 && s[0] == '0' {
		prefix := map[byte]int{'x': 16, 'o': 8, 'b': 2}[s[1]|0x20]
		if prefix != 0 && (base == prefix || base == 0) {
			base, s = prefix, s[2:]
		}
	}
	if s == "" || s[0] == '-' || s[0] == '+' {
		return nil, false
	}
	if base == 0 {
		if s[0] == '0' && strings.Trim(s, "0") != "" {
			return nil, false
		}
		base = 10
	}
	return parseInt(sign+s, base)
}

// pythonFloat is float(s).
func pythonFloat(s string) (float64, bool) {
	s, ok := plainNumber(s)
	if !ok {
		return 0, false
	}
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case "nan":
		return math.NaN(), true
	case "inf", "infinity":
	default:
		for i := range len(s) {
			if !isDecimal(s[i]) && strings.IndexByte("+-.eE", s[i]) < 0 {
				return 0, false // also hexadecimal floats, which Python does not read
			}
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil || errors.Is(err, strconv.ErrRange)
}
