package jinja

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

// testLimits are small, so that a hostile template is stopped soon.
var testLimits = Limits{Steps: 1_000_000, Bytes: 16 << 20, Output: 1 << 20, Depth: 100}

// grow doubles the value of ns.x n times.
func grow(n, start, doubled string) string {
	return "{% set ns = namespace(x=" + start + ") %}{% for i in range(" + n + ") %}{% set ns.x = " + doubled + " %}{% endfor %}"
}

// TestHostileTemplatesAreStopped renders templates that would take hours, all
// memory or the stack. Each must end in an error; together they must not
// allocate more than a small multiple of what the limits allow.
func TestHostileTemplatesAreStopped(t *testing.T) {
	text := "{% set s = 'abcdefgh' * 100000 %}"
	for name, source := range map[string]string{
		"nested loops":           "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
		"doubling text":          grow("100", "'xy'", "ns.x + ns.x"),
		"doubling by concat":     grow("100", "'xy'", "ns.x ~ ns.x"),
		"doubling a list":        grow("100", "[1]", "ns.x + ns.x"),
		"repeated text":          "{{ 'x' * 10**12 }}",
		"repeated list":          "{{ [1] * 10**12 }}",
		"overflowing repetition": "{{ 'abc' * 9223372036854775807 }}",
		"macro recursion":        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"caller recursion":       "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}",
		"loop recursion":         "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
		"print of shared lists":  grow("60", "[1]", "[ns.x, ns.x]") + "{{ ns.x }}",
		"json of shared lists":   grow("60", "[1]", "[ns.x, ns.x]") + "{{ ns.x|tojson }}",
		"equal shared lists":     grow("60", "[1]", "[ns.x, ns.x]") + "{% set a = ns.x %}" + grow("60", "[1]", "[ns.x, ns.x]") + "{{ a == ns.x }}",
		"ordered shared lists":   grow("60", "[1]", "[ns.x, ns.x]") + "{% set a = ns.x %}" + grow("60", "[1]", "[ns.x, ns.x]") + "{{ a < ns.x }}",
		"shared tuples as keys":  grow("60", "(1, 2)", "(ns.x, ns.x)") + "{{ {ns.x: 1} }}",
		"print of deep lists":    grow("100000", "[1]", "[ns.x]") + "{{ ns.x }}",
		"json of deep lists":     grow("100000", "[1]", "[ns.x]") + "{{ ns.x|tojson }}",
		"equal deep lists":       grow("100000", "[1]", "[ns.x]") + "{% set a = ns.x %}" + grow("100000", "[1]", "[ns.x]") + "{{ a == ns.x }}",
		"deep tuple as key":      grow("100000", "(1, 2)", "(ns.x,)") + "{{ {ns.x: 1} }}",
		"deep generators":        grow("100000", "[1]", "ns.x|map('string')") + "{{ ns.x|list }}",
		"deep selections":        grow("100000", "[1]", "ns.x|select") + "{{ ns.x|list }}",
		"namespace in itself":    "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
		"percent width":          "{{ '%1000000000d' % 1 }}",
		"percent star":           "{{ '%*d' % (1000000000, 1) }}",
		"percent precision":      "{{ '%.1000000000f' % 1.5 }}",
		"many wide fields":       "{% for i in range(100000) %}{% set x = '%65000d%65000d' % (1, 2) %}{% endfor %}",
		"format width":           "{{ '{:1000000000}'.format(1) }}",
		"nested format width":    "{{ '{:{w}}'.format(1, w=1000000000) }}",
		"center":                 "{{ 'x'.center(10**12) }}",
		"ljust":                  "{{ 'x'.ljust(10**12) }}",
		"zfill":                  "{{ 'x'.zfill(10**12) }}",
		"expandtabs":             "{{ '\t\t'.expandtabs(10**12) }}",
		"indent":                 "{{ 'a\nb'|indent(10**12) }}",
		"indent by text":         text + "{{ ('a\n' * 100000)|indent(s) }}",
		"json indent":            text + "{{ [[[[1]]]]|tojson(indent=s) }}",
		"json indent width":      "{{ [[[[1]]]]|tojson(indent=10**12) }}",
		"json separators":        text + "{{ range(100000)|list|tojson(separators=(s, s)) }}",
		"batch fill":             "{{ [1]|batch(10**12, 'x')|list }}",
		"slice fill":             "{{ [1]|slice(10**12, 'x')|list }}",
		"replace":                text + "{{ s|replace('', s) }}",
		"replace method":         text + "{{ s.replace('a', s) }}",
		"join":                   text + "{{ range(100000)|join(s) }}",
		"join method":            text + "{{ s.join('x' * 100000) }}",
		"sum of lists":           "{{ ([[1]] * 100000)|sum(start=[]) }}",
		"escape":                 "{% set s = '&' * 1000000 %}{% for i in range(100) %}{% set x = s|e %}{% endfor %}",
		"searching":              text + "{% for i in range(100000) %}{% set x = 'zz' in s %}{% endfor %}",
		"counting":               text + "{% for i in range(100000) %}{% set x = s.count('z') %}{% endfor %}",
		"lengths":                text + "{% for i in range(100000) %}{% set x = s|length %}{% endfor %}",
		"comparing":              text + "{% set t = 'abcdefgh' * 100000 %}{% for i in range(100000) %}{% set x = s == t %}{% endfor %}",
		"indexing":               text + "{% for i in range(100000) %}{% set x = s[99999] %}{% endfor %}",
		"output":                 text + "{% for i in range(100000) %}{{ s }}{% endfor %}",
		"captured output":        "{% macro f(n) %}" + strings.Repeat("x", 10000) + "{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(90) }}",
		"spread arguments":       "{% macro f() %}{{ varargs|length }}{% endmacro %}{% for i in range(100000) %}{% set x = f(*range(100000)) %}{% endfor %}",
		"sorting":                "{% for i in range(100000) %}{% set x = range(100000)|sort(reverse=true) %}{% endfor %}",
		"unique":                 "{% for i in range(1000) %}{% set x = range(100000)|unique|list %}{% endfor %}",
		"dictionaries":           "{% for i in range(100000) %}{% set x = dict(range(100000)|batch(2)) %}{% endfor %}",
		"range":                  "{{ range(10**15)|list }}",
		"range bounds":           "{{ range(-9223372036854775807, 9223372036854775807)|length }}",
		"case mapping":           text + "{% for i in range(100000) %}{% set x = s.upper() %}{% endfor %}",
		"splitting":              text + "{% for i in range(100000) %}{% set x = s.split('a') %}{% endfor %}",
		"slicing":                "{% set s = 'é' * 100000 %}{% for i in range(100000) %}{% set x = s[::-1] %}{% endfor %}",
		"striptags":              "{% set s = '<a>' * 100000 %}{% for i in range(100000) %}{% set x = s|striptags %}{% endfor %}",
		"urlencode":              "{% set s = 'é' * 100000 %}{% for i in range(100000) %}{% set x = s|urlencode %}{% endfor %}",
		"quoting":                "{% set s = '\x01' * 1000000 %}{% for i in range(100000) %}{% set x = [s]|string %}{% endfor %}",
	} {
		t.Run(name, func(t *testing.T) {
			tmpl, err := Parse(source)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			out, err := tmpl.Render(NewDict(0), testLimits)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Errorf("rendered %d bytes", len(out))
			}
			// Values are counted before they are made, at their size. Buffers
			// that grow by doubling and quoted text cost a few times that;
			// every step may allocate a small object.
			bound := uint64(8*testLimits.Bytes + 128*testLimits.Steps)
			if used := after.TotalAlloc - before.TotalAlloc; used > bound {
				t.Errorf("allocated %d MiB, more than %d", used>>20, bound>>20)
			}
		})
	}
}

// TestHostileSourcesAreRefused parses sources that nest or chain without end.
func TestHostileSourcesAreRefused(t *testing.T) {
	const n = 100_000
	for name, source := range map[string]string{
		"parentheses":  "{{ " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n) + " }}",
		"open":         "{{ " + strings.Repeat("(", n),
		"lists":        "{{ " + strings.Repeat("[", n) + strings.Repeat("]", n) + " }}",
		"dictionaries": "{{ " + strings.Repeat("{1:", n) + "1" + strings.Repeat("}", n) + " }}",
		"not":          "{{ " + strings.Repeat("not ", n) + "1 }}",
		"minus":        "{{ " + strings.Repeat("- ", n) + "1 }}",
		"sums":         "{{ 1" + strings.Repeat("+1", n) + " }}",
		"powers":       "{{ 1" + strings.Repeat("**1", n) + " }}",
		"conditions":   "{{ 1" + strings.Repeat(" if 1", n) + " }}",
		"alternatives": "{{ 1" + strings.Repeat(" if 1 else 1", n) + " }}",
		"attributes":   "{{ a" + strings.Repeat(".a", n) + " }}",
		"items":        "{{ a" + strings.Repeat("[0]", n) + " }}",
		"nested items": "{{ a" + strings.Repeat("[a", n) + strings.Repeat("]", n) + " }}",
		"calls":        "{{ a" + strings.Repeat("()", n) + " }}",
		"filters":      "{{ a" + strings.Repeat("|e", n) + " }}",
		"targets":      "{% set " + strings.Repeat("(", n) + "a" + strings.Repeat(")", n) + " = 1 %}",
		"ifs":          strings.Repeat("{%if 1%}", n) + strings.Repeat("{%endif%}", n),
		"long":         strings.Repeat("x", maxSource+1),
		"long number":  "{{ " + strings.Repeat("9", maxDigits+1) + " }}",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse(source); err == nil {
				t.Error("parsed")
			}
		})
	}
}

func TestLongButFlatTemplatesWork(t *testing.T) {
	const n = 20_000
	for name, source := range map[string]string{
		"text":  strings.Repeat("{{ 1 }}x", n),
		"elifs": "{% if 0 %}" + strings.Repeat("{% elif 0 %}", n) + "{% endif %}",
		"tilde": "{{ 1" + strings.Repeat("~1", 1000) + " }}",
		"list":  "{{ [" + strings.Repeat("1,", n) + "]|length }}",
	} {
		if _, err := renderSource(source, NewDict(0)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsCarryLines(t *testing.T) {
	for _, c := range []struct {
		source string
		line   int
		want   string
	}{
		{"a\nb\n{{ x.y }}", 3, "'x' is undefined"},
		{"\n{% for i in [1] %}\n  {{ i }}\n  {{ i + 'a' }}\n{% endfor %}", 4, "unsupported operand"},
		{"{{\n\n1 // 0 }}", 3, "division by zero"},
		{"{% macro m() %}\n{{ none.x.y }}{% endmacro %}\n\n{{ m() }}", 2, "'None' has no attribute 'x'"},
		{"{% set d = {} %}{{ d.x.y }}", 1, "'dict object' has no attribute 'x'"},
		{"\n\n{% if %}", 3, "expected an expression"},
		{"\n{% for x in y %}\n", 2, "'for' is not closed"},
		{"\n{% include 'x' %}", 2, "'include' is not supported"},
		{"\n{% fro %}", 2, "unknown tag 'fro'"},
		{"\n\n{{ 'a", 3, "not closed"},
		{"{# \n\n", 1, "not closed"},
		{"a\n{{ a|nope }}", 2, "no filter named 'nope'"},
		{"a\r\nb\r\n{{ 1 / 0 }}", 3, "division by zero"},
		{"{% for x in\n 5 %}{% endfor %}", 1, "not iterable"},
		{"{{ 'a'.upper(1) }}", 1, "upper()"},
		{"x\n{% raw %}\n{{ x }}\n{% endraw %}\n{{ 1 / 0 }}", 5, "division by zero"},
	} {
		_, err := renderSource(c.source, NewDict(0))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: got %v, want an *Error", c.source, err)
			continue
		}
		if e.Line != c.line || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want line %d: ...%s...", c.source, err, c.line, c.want)
		}
	}
}
