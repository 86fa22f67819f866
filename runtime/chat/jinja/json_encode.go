package jinja

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// filterToJSON is the tojson filter of chat templates: Python's json.dumps with
// ensure_ascii off.
func filterToJSON(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys")
	if err != nil {
		return nil, err
	}
	w := &jsonWriter{st: st, item: ", ", colon: ": "}
	if w.ascii, err = flag(st, p[0], false); err != nil {
		return nil, err
	}
	if w.sorted, err = flag(st, p[3], false); err != nil {
		return nil, err
	}
	if p[1] != nil && p[1] != Value(None) {
		w.multiline, w.item = true, ","
		if s, ok := text(p[1]); ok {
			w.indent = s
			if len(s) > maxField {
				return nil, errBytes
			}
		} else {
			n, err := needInt(p[1], 0)
			if err != nil {
				return nil, err
			}
			if n > maxField {
				return nil, errBytes
			}
			w.indent = strings.Repeat(" ", max(n, 0))
		}
	}
	if p[2] != nil && p[2] != Value(None) {
		pair, err := st.items(p[2])
		if err != nil {
			return nil, err
		}
		if len(pair) != 2 {
			return nil, errors.New("separators must be a pair")
		}
		if w.item, err = needText(pair[0]); err != nil {
			return nil, err
		}
		if w.colon, err = needText(pair[1]); err != nil {
			return nil, err
		}
	}
	if err := w.value(v, 0); err != nil {
		return nil, err
	}
	return string(w.b), nil
}

// flag is the truth of an optional argument.
func flag(st *state, v Value, unset bool) (bool, error) {
	if v == nil {
		return unset, nil
	}
	return truth(st, v)
}

type jsonWriter struct {
	st            *state
	b             []byte
	counted       int
	item, colon   string
	indent        string
	multiline     bool
	ascii, sorted bool
}

// account charges what was written since the last call.
func (w *jsonWriter) account() error {
	n := len(w.b) - w.counted
	w.counted = len(w.b)
	if err := w.st.step(); err != nil {
		return err
	}
	return w.st.build(n)
}

func (w *jsonWriter) value(v Value, depth int) error {
	if depth > maxNesting {
		return errNesting
	}
	switch v := v.(type) {
	case NoneType:
		w.b = append(w.b, "null"...)
	case bool:
		w.b = strconv.AppendBool(w.b, v)
	case int64:
		w.b = strconv.AppendInt(w.b, v, 10)
	case *big.Int:
		w.b = v.Append(w.b, 10)
	case float64:
		w.b = appendJSONFloat(w.b, v)
	case string:
		w.quote(v)
	case Markup:
		w.quote(string(v))
	case *List:
		return w.array(v.Items, depth)
	case *Tuple:
		return w.array(v.Items, depth)
	case *Dict:
		return w.object(v, depth)
	default:
		return fmt.Errorf("object of type %s is not JSON serializable", typeName(v))
	}
	return w.account()
}

func appendJSONFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	return appendFloat(b, f)
}

// newline begins a line of an indented text.
func (w *jsonWriter) newline(depth int) {
	if w.multiline {
		w.b = append(w.b, '\n')
		for range depth {
			w.b = append(w.b, w.indent...)
		}
	}
}

func (w *jsonWriter) array(items []Value, depth int) error {
	if len(items) == 0 {
		w.b = append(w.b, "[]"...)
		return w.account()
	}
	w.b = append(w.b, '[')
	for i, v := range items {
		if i > 0 {
			w.b = append(w.b, w.item...)
		}
		w.newline(depth + 1)
		if err := w.value(v, depth+1); err != nil {
			return err
		}
	}
	w.newline(depth)
	w.b = append(w.b, ']')
	return w.account()
}

func (w *jsonWriter) object(d *Dict, depth int) error {
	if d.Len() == 0 {
		w.b = append(w.b, "{}"...)
		return w.account()
	}
	order, err := w.order(d)
	if err != nil {
		return err
	}
	w.b = append(w.b, '{')
	for n, i := range order {
		if n > 0 {
			w.b = append(w.b, w.item...)
		}
		w.newline(depth + 1)
		switch k := d.keys[i].(type) {
		case string:
			w.quote(k)
		case Markup:
			w.quote(string(k))
		case NoneType, bool, int64, *big.Int, float64:
			w.b = append(w.b, '"')
			if err := w.value(k, depth+1); err != nil {
				return err
			}
			w.b = append(w.b, '"')
		default:
			return fmt.Errorf("keys must be str, int, float, bool or None, not %s", typeName(k))
		}
		w.b = append(w.b, w.colon...)
		if err := w.value(d.values[i], depth+1); err != nil {
			return err
		}
	}
	w.newline(depth)
	w.b = append(w.b, '}')
	return w.account()
}

// order returns the places of the keys in the order of the output.
func (w *jsonWriter) order(d *Dict) ([]int, error) {
	if err := w.st.build(8 * d.Len()); err != nil {
		return nil, err
	}
	places := make([]int, d.Len())
	for i := range places {
		places[i] = i
	}
	if !w.sorted {
		return places, nil
	}
	var failed error
	slices.SortStableFunc(places, func(i, j int) int {
		c, err := order(w.st, "<", d.keys[i], d.keys[j])
		if failed == nil {
			failed = err
		}
		return c
	})
	return places, failed
}

const hexDigits = "0123456789abcdef"

// quote writes a string: quotes, backslashes and control characters are
// escaped, and with ascii everything that is not ASCII.
func (w *jsonWriter) quote(s string) {
	w.b = append(w.b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && (c < utf8.RuneSelf || !w.ascii) {
			i++
			continue
		}
		w.b = append(w.b, s[start:i]...)
		r, n := utf8.DecodeRuneInString(s[i:])
		switch r {
		case '"', '\\':
			w.b = append(w.b, '\\', c)
		case '\n':
			w.b = append(w.b, `\n`...)
		case '\r':
			w.b = append(w.b, `\r`...)
		case '\t':
			w.b = append(w.b, `\t`...)
		case '\b':
			w.b = append(w.b, `\b`...)
		case '\f':
			w.b = append(w.b, `\f`...)
		default:
			if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
				w.unicode(hi)
				r = lo
			}
			w.unicode(r)
		}
		i += n
		start = i
	}
	w.b = append(w.b, s[start:]...)
	w.b = append(w.b, '"')
}

func (w *jsonWriter) unicode(r rune) {
	w.b = append(w.b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
