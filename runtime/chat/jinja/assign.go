package jinja

import (
	"errors"
	"fmt"
)

// target is what a value is assigned to: a variable, an attribute of a
// namespace, or a tuple of targets.
type target struct {
	line  int
	sym   int
	attr  string   // of the namespace in the variable sym, "" for the variable
	items []target // of a tuple
	tuple bool
}

func (t *target) assign(st *state, v Value) error {
	switch {
	case t.tuple:
		return t.unpack(st, v)
	case t.attr != "":
		ns, err := t.namespace(st)
		if err != nil {
			return err
		}
		if err := st.build(2 * valueBytes); err != nil {
			return err
		}
		ns.attrs.Set(t.attr, v)
	default:
		st.set(t.sym, v)
	}
	return nil
}

func (t *target) namespace(st *state) (*namespace, error) {
	ns, ok := st.get(t.sym).(*namespace)
	if !ok {
		return nil, errors.New("cannot assign attribute on non-namespace object")
	}
	return ns, nil
}

func (t *target) unpack(st *state, v Value) error {
	it, err := iterate(v)
	if err != nil {
		return fmt.Errorf("cannot unpack non-iterable %s object", typeName(v))
	}
	values := make([]Value, len(t.items))
	for i := range values {
		item, ok, err := st.next(it)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("not enough values to unpack (expected %d, got %d)", len(t.items), i)
		}
		values[i] = item
	}
	if _, more, err := st.next(it); err != nil {
		return err
	} else if more {
		return fmt.Errorf("too many values to unpack (expected %d)", len(t.items))
	}
	for i := range t.items {
		if err := t.items[i].assign(st, values[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkNamespaces fails when an attribute target is no namespace's.
func (t *target) checkNamespaces(st *state) error {
	if t.attr != "" {
		_, err := t.namespace(st)
		return err
	}
	for i := range t.items {
		if err := t.items[i].checkNamespaces(st); err != nil {
			return err
		}
	}
	return nil
}
