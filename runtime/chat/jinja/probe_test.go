package jinja

import (
	"encoding/json"
	"math"
	"os"
	"testing"
	"time"
)

// testVars returns variables with the functions of chat templates.
func testVars(t testing.TB, data []byte) *Dict {
	t.Helper()
	v, err := ParseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	vars := v.(*Dict)
	vars.Set("inf", math.Inf(1))
	vars.Set("nan", math.NaN())
	vars.Set("raise_exception", Func("raise_exception", []string{"message"}, func(a []Value) (Value, error) {
		s, err := Str(a[0])
		if err != nil {
			return nil, err
		}
		return nil, &raised{s}
	}))
	vars.Set("strftime_now", Func("strftime_now", []string{"format"}, func(a []Value) (Value, error) {
		s, _ := a[0].(string)
		return Strftime(time.Date(2024, 7, 9, 8, 5, 3, 42000, time.UTC), s), nil
	}))
	return vars
}

type raised struct{ message string }

func (r *raised) Error() string { return r.message }

// TestProbesMatchJinja2 renders small templates and compares with what jinja2
// made of them (testdata/probes.py), refusals included.
func TestProbesMatchJinja2(t *testing.T) {
	data, err := os.ReadFile("testdata/probes.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Variables json.RawMessage
		Probes    [][2]*string
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	for _, p := range golden.Probes {
		source, want := *p[0], p[1]
		got, err := renderSource(source, testVars(t, golden.Variables))
		switch {
		case want == nil && err == nil:
			t.Errorf("%s\n got %q, want a refusal", source, got)
		case want != nil && err != nil:
			t.Errorf("%s\n got error %v, want %q", source, err, *want)
		case want != nil && got != *want:
			t.Errorf("%s\n got  %q\n want %q", source, got, *want)
		}
	}
}

func renderSource(source string, vars *Dict) (string, error) {
	tmpl, err := Parse(source)
	if err != nil {
		return "", err
	}
	return tmpl.Render(vars, Limits{})
}
