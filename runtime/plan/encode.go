package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Encode writes the plan as a plan file: one rule and one layer a line. The same
// plan always gives the same bytes. An error is a *FormatError.
func (p *Plan) Encode() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	search, err := object("search", p.Search)
	if err != nil {
		return nil, err
	}
	quality, err := object("quality", p.Quality)
	if err != nil {
		return nil, err
	}
	var w writer
	w.field("format", Format)
	if p.Name != "" {
		w.field("name", p.Name)
	}
	w.field("model", p.Model)
	w.field("block", BlockSize)
	w.field("sink_blocks", 1)
	w.field("span", p.Span)
	w.field("floor", p.Floor)
	writeLines(&w, "rules", p.Rules)
	writeLines(&w, "heads", p.Heads)
	if len(p.Densities) > 0 {
		w.key("density")
		w.b.WriteByte('{')
		for i, tokens := range slices.Sorted(maps.Keys(p.Densities)) {
			if i > 0 {
				w.b.WriteString(", ")
			}
			fmt.Fprintf(&w.b, "\"%d\": ", tokens)
			w.value(p.Densities[tokens])
		}
		w.b.WriteByte('}')
	}
	if search != nil {
		w.field("search", search)
	}
	if quality != nil {
		w.field("quality", quality)
	}
	return w.end()
}

// object returns a JSON object in its compact form; nil for an absent one.
func object(field string, raw json.RawMessage) (json.RawMessage, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil || raw[0] != '{' {
		return nil, wrong(field, "is not a JSON object")
	}
	return b.Bytes(), nil
}

// writer builds the one JSON object of a plan file, a field a line.
type writer struct {
	b   bytes.Buffer
	err error
}

func (w *writer) key(name string) {
	if w.b.Len() == 0 {
		w.b.WriteString("{\n  ")
	} else {
		w.b.WriteString(",\n  ")
	}
	w.value(name)
	w.b.WriteString(": ")
}

func (w *writer) value(v any) {
	e := json.NewEncoder(&w.b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil && w.err == nil {
		w.err = err
	}
	w.b.Truncate(w.b.Len() - 1) // the encoder's newline
}

func (w *writer) field(name string, v any) {
	w.key(name)
	w.value(v)
}

func writeLines[T any](w *writer, name string, values []T) {
	w.key(name)
	w.b.WriteByte('[')
	for i, v := range values {
		if i > 0 {
			w.b.WriteByte(',')
		}
		w.b.WriteString("\n    ")
		w.value(v)
	}
	w.b.WriteString("\n  ]")
}

func (w *writer) end() ([]byte, error) {
	w.b.WriteString("\n}\n")
	return w.b.Bytes(), w.err
}
