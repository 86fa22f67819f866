package jinja

import (
	"fmt"
	"slices"
)

// macro is a macro, or the body of a call block as its caller.
type macro struct {
	def   *macroDef
	scope *scope // where it was defined
}

// macroDef is the parsed definition.
type macroDef struct {
	name     string // "" for a call block
	params   []string
	syms     []int  // of the parameters
	defaults []expr // of the last parameters
	body     []stmt
	// The body uses these special variables: their symbols, or -1.
	caller, kwargs, varargs int
}

// call runs the macro and returns its output.
func (m *macro) call(st *state, a *args) (Value, error) {
	def := m.def
	sc := &scope{parent: m.scope}
	bound, err := m.bind(sc, a)
	if err != nil {
		return nil, err
	}
	if err := st.enter(); err != nil {
		return nil, err
	}
	defer st.leave()
	outer := st.scope
	st.scope = sc
	defer func() { st.scope = outer }()
	for i, v := range bound {
		if v == nil {
			if j := i - (len(def.params) - len(def.defaults)); j >= 0 {
				if v, err = def.defaults[j].eval(st); err != nil {
					return nil, err
				}
			} else {
				v = &undefined{hint: fmt.Sprintf("parameter '%s' was not provided", def.params[i])}
			}
		}
		sc.set(def.syms[i], v)
	}
	text, err := st.capture(func() error {
		_, err := execAll(st, def.body)
		return err
	})
	return text, err
}

// bind assigns the arguments to the parameters, nil for those not given, and
// sets the special variables.
func (m *macro) bind(sc *scope, a *args) ([]Value, error) {
	def := m.def
	bound := make([]Value, len(def.params))
	n := copy(bound, a.pos)
	rest := &args{named: a.named}
	explicitCaller := n == len(def.params) && slices.Contains(def.params, "caller")
	for i := n; i < len(def.params); i++ {
		bound[i] = rest.take(def.params[i])
		explicitCaller = explicitCaller || def.params[i] == "caller"
	}
	if def.caller >= 0 && !explicitCaller {
		c := rest.take("caller")
		if c == nil || c == Value(None) {
			c = &undefined{hint: "No caller defined"}
		}
		sc.set(def.caller, c)
	}
	if def.kwargs >= 0 {
		kw := NewDict(len(rest.named))
		for _, n := range rest.named {
			kw.Set(n.name, n.value)
		}
		sc.set(def.kwargs, kw)
	} else if len(rest.named) > 0 {
		return nil, fmt.Errorf("macro '%s' takes no keyword argument '%s'", def.name, rest.named[0].name)
	}
	if def.varargs >= 0 {
		sc.set(def.varargs, &Tuple{Items: a.pos[n:]})
	} else if len(a.pos) > n {
		return nil, fmt.Errorf("macro '%s' takes not more than %d arguments", def.name, len(def.params))
	}
	return bound, nil
}

// attr returns an attribute of a macro.
func (m *macro) attr(name string) (Value, bool) {
	switch name {
	case "name":
		if m.def.name == "" {
			return None, true
		}
		return m.def.name, true
	case "arguments":
		t := &Tuple{}
		for _, p := range m.def.params {
			t.Items = append(t.Items, p)
		}
		return t, true
	case "catch_kwargs":
		return m.def.kwargs >= 0, true
	case "catch_varargs":
		return m.def.varargs >= 0, true
	case "caller":
		return m.def.caller >= 0, true
	}
	return nil, false
}
