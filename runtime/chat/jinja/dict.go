package jinja

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Dict is a mapping that keeps the order in which keys were first set. It must
// not be changed once a template can see it.
type Dict struct {
	keys, values []Value
	index        map[any]int // by hashable key; nil while the mapping is small
}

// indexFrom is the size at which a mapping gets an index: below it, comparing
// keys one by one is faster.
const indexFrom = 9

// NewDict returns an empty mapping with room for n keys.
func NewDict(n int) *Dict {
	return &Dict{keys: make([]Value, 0, n), values: make([]Value, 0, n)}
}

// Len returns the number of keys.
func (d *Dict) Len() int { return len(d.keys) }

// Set sets a text key.
func (d *Dict) Set(key string, v Value) {
	if i := d.findText(key); i >= 0 {
		d.values[i] = v
		return
	}
	boxed := Value(key)
	d.add(boxed, boxed, v)
}

// Get returns the value of a text key.
func (d *Dict) Get(key string) (Value, bool) {
	if i := d.findText(key); i >= 0 {
		return d.values[i], true
	}
	return nil, false
}

// findText returns the place of a text key, or -1.
func (d *Dict) findText(key string) int {
	if d.index != nil {
		if i, ok := d.index[key]; ok {
			return i
		}
		return -1
	}
	for i, k := range d.keys {
		if s, ok := k.(string); ok && s == key {
			return i
		}
	}
	return -1
}

// find returns the place of a key by its hashable form, or -1.
func (d *Dict) find(hashed any) int {
	if d.index != nil {
		if i, ok := d.index[hashed]; ok {
			return i
		}
		return -1
	}
	for i, k := range d.keys {
		if h, err := hashable(k, 0); err == nil && h == hashed {
			return i
		}
	}
	return -1
}

// set sets a key; hashed is its hashable form.
func (d *Dict) set(key, hashed, v Value) {
	if i := d.find(hashed); i >= 0 {
		d.values[i] = v
		return
	}
	d.add(key, hashed, v)
}

// add appends a key that is not there.
func (d *Dict) add(key, hashed, v Value) {
	d.keys, d.values = append(d.keys, key), append(d.values, v)
	switch {
	case d.index != nil:
		d.index[hashed] = len(d.keys) - 1
	case len(d.keys) == indexFrom:
		d.index = make(map[any]int, 2*indexFrom)
		for i, k := range d.keys {
			if h, err := hashable(k, 0); err == nil {
				d.index[h] = i
			}
		}
	}
}

// lookup returns the value of any key; the error says that the key cannot be a
// key.
func (d *Dict) lookup(key Value) (Value, bool, error) {
	if s, ok := key.(string); ok {
		v, found := d.Get(s)
		return v, found, nil
	}
	h, err := hashable(key, 0)
	if err != nil {
		return nil, false, err
	}
	if i := d.find(h); i >= 0 {
		return d.values[i], true, nil
	}
	return nil, false, nil
}

// put sets any key.
func (d *Dict) put(key, v Value) error {
	h, err := hashable(key, 0)
	if err != nil {
		return err
	}
	d.set(key, h, v)
	return nil
}

func (d *Dict) copy() *Dict {
	c := NewDict(d.Len())
	for i, k := range d.keys {
		if h, err := hashable(k, 0); err == nil {
			c.set(k, h, d.values[i])
		}
	}
	return c
}

// tupleKey and bigKey are the hashable forms of tuples and long integers.
type (
	tupleKey string
	bigKey   string
)

// maxTupleKey bounds the text of a tuple that is a key. It also bounds the work
// for tuples that contain one tuple many times.
const maxTupleKey = 64 << 10

// hashable returns a comparable form of a key: equal keys, as Python compares
// them, have equal forms. Lists and mappings have none.
func hashable(v Value, depth int) (any, error) {
	switch v := v.(type) {
	case string, int64, NoneType, *namespace, *function, *macro, *generator, *loopContext, rangeValue:
		return v, nil
	case Markup:
		return string(v), nil
	case bool:
		n, _ := isInt(v)
		return n, nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<62 {
			return int64(v), nil
		}
		return v, nil
	case *big.Int:
		return bigKey(v.String()), nil
	case *undefined:
		return (*undefined)(nil), nil
	case *Tuple:
		if depth > maxNesting {
			return nil, errNesting
		}
		var b strings.Builder
		for _, item := range v.Items {
			h, err := hashable(item, depth+1)
			if err != nil {
				return nil, err
			}
			var s string
			switch h.(type) {
			case string, tupleKey, bigKey, int64, float64, NoneType, rangeValue:
				s = fmt.Sprintf("%T:%v", h, h)
			default:
				s = fmt.Sprintf("%T:%p", h, h)
			}
			if b.Len()+len(s) > maxTupleKey {
				return nil, errors.New("a tuple is too long for a key")
			}
			b.WriteString(strconv.Itoa(len(s)))
			b.WriteByte(':')
			b.WriteString(s)
		}
		return tupleKey(b.String()), nil
	}
	return nil, fmt.Errorf("unhashable type: '%s'", typeName(v))
}

// All yields the text keys and their values in order.
func (d *Dict) All() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for i, k := range d.keys {
			if s, ok := k.(string); ok && !yield(s, d.values[i]) {
				return
			}
		}
	}
}
