// Package jinja renders chat templates: the subset of the Jinja2 template
// language, and of the Python behind it, that the templates of language models
// are written in.
//
// The language is Jinja2 3.1 as the transformers library sets it up: an
// immutable sandbox with trim_blocks, lstrip_blocks, the loop controls and the
// generation tag, no autoescape, and a tojson filter that does not escape for
// HTML. Values print as Python prints them, strings are indexed by code point,
// and mappings keep their order.
//
// A template comes from a model file and is not trusted. It reaches neither
// files nor the network nor the host: include, import, extends and block are
// refused when parsing. A render is bounded in steps, in the bytes it builds,
// in the size of its output and in its recursion (see Limits), and values are
// never changed by a template.
//
// Where Python has integers of any size, this package computes in 64 bits and
// reports an overflow as an error; larger integers of the input are carried and
// printed unchanged.
package jinja

import (
	"fmt"
)

// Error is a failure at a line of the template: a syntax error from Parse, or a
// failed render.
type Error struct {
	Line int // from 1
	Err  error
}

// Error gives the line and the cause.
func (e *Error) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the cause: for a render, also an error of a Func.
func (e *Error) Unwrap() error { return e.Err }

// Limits bounds what a render may use. A zero field takes the default.
type Limits struct {
	// Steps bounds the work: evaluated nodes, loop iterations, and one more for
	// each 32 bytes that are searched or compared.
	Steps int
	// Bytes bounds the sum of all strings, lists and mappings that are built,
	// kept or not.
	Bytes int
	// Output bounds the rendered text in bytes.
	Output int
	// Depth bounds nested calls of macros, call blocks and recursive loops.
	Depth int
}

// DefaultLimits stop a hostile template within seconds. A conversation of a
// thousand turns and a megabyte needs a hundredth of them.
var DefaultLimits = Limits{Steps: 10_000_000, Bytes: 256 << 20, Output: 32 << 20, Depth: 200}

func (l Limits) withDefaults() Limits {
	if l.Steps <= 0 {
		l.Steps = DefaultLimits.Steps
	}
	if l.Bytes <= 0 {
		l.Bytes = DefaultLimits.Bytes
	}
	if l.Output <= 0 {
		l.Output = DefaultLimits.Output
	}
	if l.Depth <= 0 {
		l.Depth = DefaultLimits.Depth
	}
	return l
}

// Template is a parsed template. It is immutable and safe for concurrent use.
type Template struct {
	body  []stmt
	names []string // the symbols: variable names of the template
}

// Parse reads a template. The error is an *Error with the line of the mistake.
func Parse(source string) (*Template, error) {
	if len(source) > maxSource {
		return nil, &Error{Line: 1, Err: fmt.Errorf("the template has %d bytes, more than %d", len(source), maxSource)}
	}
	tokens, err := lex(source)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens, symbols: map[string]int{}}
	body, err := p.template()
	if err != nil {
		return nil, err
	}
	return &Template{body: body, names: p.names}, nil
}

// maxSource bounds a template's source. The longest published chat templates
// have about 50 kB.
const maxSource = 1 << 20

// Render executes the template with vars as its variables. It does not modify
// vars. The error is an *Error; use errors.As to find the error of a Func.
func (t *Template) Render(vars *Dict, limits Limits) (string, error) {
	st := newState(t, vars, limits.withDefaults())
	if _, err := execAll(st, t.body); err != nil {
		return "", err
	}
	return string(st.out.b), nil
}
