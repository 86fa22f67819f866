package jinja

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"unicode/utf8"
)

// FuzzRender parses and renders any source. Nothing may panic or exceed its
// limits, and a template renders the same twice.
func FuzzRender(f *testing.F) {
	data, err := os.ReadFile("testdata/probes.json")
	if err != nil {
		f.Fatal(err)
	}
	var golden struct {
		Variables json.RawMessage
		Probes    [][]any
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		f.Fatal(err)
	}
	for _, p := range golden.Probes {
		f.Add(p[0].(string))
	}
	templates, err := filepath.Glob("../testdata/templates/*.jinja")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range templates {
		source, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(source))
	}
	limits := Limits{Steps: 20_000, Bytes: 1 << 20, Output: 1 << 16, Depth: 20}
	f.Fuzz(func(t *testing.T, source string) {
		tmpl, err := Parse(source)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 {
				t.Fatalf("Parse: %v has no line", err)
			}
			return
		}
		first, err := tmpl.Render(testVars(t, golden.Variables), limits)
		if len(first) > limits.Output {
			t.Fatalf("%d bytes of output", len(first))
		}
		second, err2 := tmpl.Render(testVars(t, golden.Variables), limits)
		if first != second || (err == nil) != (err2 == nil) {
			t.Fatalf("rendered %q, %v and then %q, %v", first, err, second, err2)
		}
		if err == nil && !utf8.ValidString(first) {
			t.Fatalf("%q is not UTF-8", first)
		}
	})
}

// FuzzParseJSON compares what is accepted with encoding/json, and what was read
// with what it reads.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{
		`{"b": 1, "a": [1.5, -2e3, true, false, null, "x\n\u00e9\ud83d\ude00"]}`, `[]`, `{}`, `""`, ` 0 `, `-0`, `-0.0`,
		`12345678901234567890`, `1e999`, `"\ud800"`, "\"\xff\"", `{"a": 1, "a": 2}`, `[1,]`, `{"a"}`, `nul`, `[[[[]]]]`, `"é"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseJSON(data)
		if err != nil {
			return // besides invalid JSON: too deep, or too long a number
		}
		var want any
		if json.Unmarshal(data, &want) != nil {
			if !json.Valid(data) {
				t.Fatalf("%q was read as %v", data, v)
			}
			return // a number that does not fit a float64
		}
		out, err := filterToJSON(&state{limits: DefaultLimits}, v, &args{})
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal([]byte(out.(string)), &got); err != nil {
			t.Fatalf("%q was written as %q: %v", data, out, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q was read as %v, want %v", data, got, want)
		}
	})
}
