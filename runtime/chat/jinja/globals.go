package jinja

import (
	"errors"
	"fmt"
)

// globals are the functions that every template has. A variable of the same name
// hides them.
var globals = map[string]Value{
	"range":     &function{"range", globalRange},
	"dict":      &function{"dict", globalDict},
	"namespace": &function{"namespace", globalNamespace},
	"cycler":    &function{"cycler", globalCycler},
	"joiner":    &function{"joiner", globalJoiner},
}

// maxRange is the longest range that the sandbox allows.
const maxRange = 100_000

func globalRange(_ *state, a *args) (Value, error) {
	p, err := a.positional("range", 1, 3)
	if err != nil {
		return nil, err
	}
	r := rangeValue{step: 1}
	into := []*int64{&r.start, &r.stop, &r.step}
	if p[1] == nil {
		into = into[1:2]
	}
	for i, n := range into {
		if p[i] == nil {
			break
		}
		v, ok := isInt(p[i])
		if !ok {
			if u, ok := p[i].(*undefined); ok {
				return nil, u.error()
			}
			return nil, fmt.Errorf("'%s' object cannot be interpreted as an integer", typeName(p[i]))
		}
		if v > 1<<60 || v < -1<<60 {
			return nil, errOverflow // so that lengths cannot overflow
		}
		*n = v
	}
	if r.step == 0 {
		return nil, errors.New("range() arg 3 must not be zero")
	}
	if r.len() > maxRange {
		return nil, fmt.Errorf("range too big: more than %d", maxRange)
	}
	return r, nil
}

// newDict makes a mapping of the arguments of dict() and namespace(): a mapping
// or pairs, and named arguments.
func newDict(st *state, fn string, a *args) (*Dict, error) {
	if len(a.pos) > 1 {
		return nil, fmt.Errorf("%s() takes at most one argument", fn)
	}
	d := NewDict(len(a.named))
	if len(a.pos) == 1 {
		if from, ok := a.pos[0].(*Dict); ok {
			if err := st.build(2 * valueBytes * from.Len()); err != nil {
				return nil, err
			}
			d = from.copy()
		} else {
			pairs, err := st.items(a.pos[0])
			if err != nil {
				return nil, err
			}
			for _, pair := range pairs {
				kv, err := st.items(pair)
				if err != nil {
					return nil, err
				}
				if len(kv) != 2 {
					return nil, errors.New("a mapping is made of pairs")
				}
				if err := st.build(2 * valueBytes); err != nil {
					return nil, err
				}
				if err := d.put(kv[0], kv[1]); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, n := range a.named {
		d.Set(n.name, n.value)
	}
	return d, nil
}

func globalDict(st *state, a *args) (Value, error) { return newDict(st, "dict", a) }

func globalNamespace(st *state, a *args) (Value, error) {
	d, err := newDict(st, "namespace", a)
	return &namespace{d}, err
}

// cycler is the value of cycler(): next() goes through the items again and
// again.
type cycler struct {
	items []Value
	i     int
}

func globalCycler(_ *state, a *args) (Value, error) {
	if len(a.pos) == 0 || len(a.named) > 0 {
		return nil, errors.New("cycler() needs at least one item")
	}
	return &cycler{items: a.pos}, nil
}

func (c *cycler) attr(name string) Value {
	switch name {
	case "current":
		return c.items[c.i]
	case "items":
		return &Tuple{Items: c.items}
	case "pos":
		return int64(c.i)
	case "next":
		return &function{name, func(_ *state, a *args) (Value, error) {
			_, err := a.positional(name, 0, 0)
			v := c.items[c.i]
			c.i = (c.i + 1) % len(c.items)
			return v, err
		}}
	case "reset":
		return &function{name, func(_ *state, a *args) (Value, error) {
			_, err := a.positional(name, 0, 0)
			c.i = 0
			return None, err
		}}
	}
	return nil
}

// globalJoiner makes a function that returns nothing the first time and the
// separator from then on.
func globalJoiner(_ *state, a *args) (Value, error) {
	p, err := a.bind("joiner", 0, "sep")
	if err != nil {
		return nil, err
	}
	if p[0] == nil {
		p[0] = ", "
	}
	used := false
	return &function{"joiner", func(_ *state, a *args) (Value, error) {
		if _, err := a.positional("joiner", 0, 0); err != nil {
			return nil, err
		}
		if !used {
			used = true
			return "", nil
		}
		return p[0], nil
	}}, nil
}
