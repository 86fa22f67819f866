package jinja

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ParseJSON decodes a JSON text into values; objects keep the order of their
// keys. Numbers without fraction and exponent are integers.
func ParseJSON(data []byte) (Value, error) {
	if !json.Valid(data) {
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, err
		}
	}
	d := jsonDecoder{data: string(data)}
	return d.value(0)
}

// jsonDecoder reads JSON that is known to be valid. Plain strings share the
// memory of data.
type jsonDecoder struct {
	data string
	pos  int
}

// peek skips blanks and returns the next byte.
func (d *jsonDecoder) peek() byte {
	for d.pos < len(d.data) {
		switch c := d.data[d.pos]; c {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return c
		}
	}
	return 0
}

func (d *jsonDecoder) value(depth int) (Value, error) {
	if depth > maxNesting {
		return nil, errNesting
	}
	switch d.peek() {
	case '{':
		return d.object(depth)
	case '[':
		return d.array(depth)
	case '"':
		return d.str()
	case 't':
		d.pos += len("true")
		return true, nil
	case 'f':
		d.pos += len("false")
		return false, nil
	case 'n':
		d.pos += len("null")
		return None, nil
	}
	return d.number()
}

func (d *jsonDecoder) object(depth int) (Value, error) {
	d.pos++
	o := NewDict(4)
	for d.peek() != '}' {
		if d.data[d.pos] == ',' {
			d.pos++
			d.peek()
		}
		key, err := d.str()
		if err != nil {
			return nil, err
		}
		d.peek()
		d.pos++ // the colon
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		o.Set(key, v)
	}
	d.pos++
	return o, nil
}

func (d *jsonDecoder) array(depth int) (Value, error) {
	d.pos++
	l := &List{}
	for d.peek() != ']' {
		if d.data[d.pos] == ',' {
			d.pos++
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		l.Items = append(l.Items, v)
	}
	d.pos++
	return l, nil
}

func (d *jsonDecoder) str() (string, error) {
	start := d.pos
	d.pos++
	plain := true
	for c := d.data[d.pos]; c != '"'; c = d.data[d.pos] {
		if c == '\\' {
			d.pos++
		}
		if c == '\\' || c >= utf8.RuneSelf {
			plain = false
		}
		d.pos++
	}
	d.pos++
	raw := d.data[start+1 : d.pos-1]
	if plain || strings.IndexByte(raw, '\\') < 0 && utf8.ValidString(raw) {
		return raw, nil
	}
	var s string
	err := json.Unmarshal([]byte(d.data[start:d.pos]), &s)
	return s, err
}

func (d *jsonDecoder) number() (Value, error) {
	start := d.pos
	float := false
	for ; d.pos < len(d.data); d.pos++ {
		switch c := d.data[d.pos]; {
		case c == '.' || c == 'e' || c == 'E':
			float = true
			continue
		case isDecimal(c) || c == '-' || c == '+':
			continue
		}
		break
	}
	s := d.data[start:d.pos]
	if !float {
		if n, ok := parseInt(s, 10); ok {
			return n, nil
		}
		return nil, errors.New("a number is too long")
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && math.IsInf(f, 0) {
		err = nil // as Python reads it
	}
	return f, err
}
