package jinja

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is Python's str(): what {{ v }} prints.
func str(st *state, v Value) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case Markup:
		return string(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case *undefined:
		return "", nil
	}
	p := printer{st: st}
	if err := p.value(v, 0); err != nil {
		return "", err
	}
	return string(p.b), nil
}

// Str returns how a template prints a value that has no undefined, iterator or
// function in it, such as the argument of a Func.
func Str(v Value) (string, error) {
	return str(&state{limits: DefaultLimits}, v)
}

// repr is Python's repr().
func repr(st *state, v Value) (string, error) {
	p := printer{st: st}
	if err := p.value(v, 0); err != nil {
		return "", err
	}
	return string(p.b), nil
}

// printer writes values as Python's repr() does.
type printer struct {
	st      *state
	b       []byte
	counted int // bytes of b that the state knows of
}

// account charges what was written since the last call.
func (p *printer) account() error {
	n := len(p.b) - p.counted
	p.counted = len(p.b)
	if err := p.st.step(); err != nil {
		return err
	}
	return p.st.build(n)
}

func (p *printer) value(v Value, depth int) error {
	if depth > maxNesting {
		return errNesting
	}
	switch v := v.(type) {
	case NoneType:
		p.b = append(p.b, "None"...)
	case bool:
		if v {
			p.b = append(p.b, "True"...)
		} else {
			p.b = append(p.b, "False"...)
		}
	case int64:
		p.b = strconv.AppendInt(p.b, v, 10)
	case *big.Int:
		p.b = v.Append(p.b, 10)
	case float64:
		p.b = appendFloat(p.b, v)
	case string:
		if err := p.quote(v); err != nil {
			return err
		}
	case Markup:
		p.b = append(p.b, "Markup("...)
		if err := p.quote(string(v)); err != nil {
			return err
		}
		p.b = append(p.b, ')')
	case *List:
		return p.items("[", v.Items, "]", depth)
	case *Tuple:
		if len(v.Items) == 1 {
			return p.items("(", v.Items, ",)", depth)
		}
		return p.items("(", v.Items, ")", depth)
	case *Dict:
		return p.dict(v, depth)
	case *undefined:
		p.b = append(p.b, "Undefined"...)
	case *namespace:
		p.b = append(p.b, "<Namespace "...)
		if err := p.dict(v.attrs, depth+1); err != nil {
			return err
		}
		p.b = append(p.b, '>')
	case rangeValue:
		if v.step == 1 {
			p.b = fmt.Appendf(p.b, "range(%d, %d)", v.start, v.stop)
		} else {
			p.b = fmt.Appendf(p.b, "range(%d, %d, %d)", v.start, v.stop, v.step)
		}
	case dictView:
		p.b = append(p.b, "dict_"+v.kind+"(["...)
		for i := range v.dict.Len() {
			if i > 0 {
				p.b = append(p.b, ", "...)
			}
			if err := p.value(v.at(i), depth+1); err != nil {
				return err
			}
		}
		p.b = append(p.b, "])"...)
	case *macro:
		if v.def.name == "" {
			p.b = append(p.b, "<Macro anonymous>"...)
		} else {
			p.b = fmt.Appendf(p.b, "<Macro '%s'>", v.def.name)
		}
	case *loopContext:
		n, err := v.length(p.st)
		if err != nil {
			return err
		}
		p.b = fmt.Appendf(p.b, "<LoopContext %d/%d>", v.index0+1, n)
	default:
		p.b = fmt.Appendf(p.b, "<%s object>", typeName(v))
	}
	return p.account()
}

func (p *printer) items(open string, items []Value, closing string, depth int) error {
	p.b = append(p.b, open...)
	for i, v := range items {
		if i > 0 {
			p.b = append(p.b, ", "...)
		}
		if err := p.value(v, depth+1); err != nil {
			return err
		}
	}
	p.b = append(p.b, closing...)
	return p.account()
}

func (p *printer) dict(d *Dict, depth int) error {
	p.b = append(p.b, '{')
	for i, k := range d.keys {
		if i > 0 {
			p.b = append(p.b, ", "...)
		}
		if err := p.value(k, depth+1); err != nil {
			return err
		}
		p.b = append(p.b, ": "...)
		if err := p.value(d.values[i], depth+1); err != nil {
			return err
		}
	}
	p.b = append(p.b, '}')
	return p.account()
}

// quote writes a string literal.
func (p *printer) quote(s string) error {
	if err := p.st.build(len(s)); err != nil {
		return err
	}
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	p.b = append(p.b, quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			p.b = append(p.b, '\\', byte(r))
		case r == '\n':
			p.b = append(p.b, `\n`...)
		case r == '\r':
			p.b = append(p.b, `\r`...)
		case r == '\t':
			p.b = append(p.b, `\t`...)
		case r >= ' ' && r < 0x7f || r > 0xff && unicode.IsPrint(r) || r > 0xa0 && r != 0xad && r <= 0xff:
			p.b = utf8.AppendRune(p.b, r)
		case r <= 0xff:
			p.b = append(p.b, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
		case r <= 0xffff:
			p.b = fmt.Appendf(p.b, `\u%04x`, r)
		default:
			p.b = fmt.Appendf(p.b, `\U%08x`, r)
		}
	}
	p.b = append(p.b, quote)
	return nil
}

// appendFloat writes a float as Python's repr() does: the shortest digits that
// read back the same, with an exponent below 1e-4 and from 1e16.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "nan"...)
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if !bytes.ContainsRune(b[start:], '.') {
		b = append(b, ".0"...)
	}
	return b
}
