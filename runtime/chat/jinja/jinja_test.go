package jinja

import (
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// TestIntegersStayIn64Bits: where Python would go on with longer integers, a
// template gets an error; longer integers of the input are only carried.
func TestIntegersStayIn64Bits(t *testing.T) {
	vars := NewDict(1)
	vars.Set("long", new(big.Int).Lsh(big.NewInt(1), 70))
	for source, want := range map[string]string{
		"{{ 9223372036854775807 + 0 }}":                  "9223372036854775807",
		"{{ 9223372036854775807 + 1 }}":                  "",
		"{{ -9223372036854775807 - 1 }}":                 "-9223372036854775808",
		"{{ -9223372036854775807 - 2 }}":                 "",
		"{{ -(-9223372036854775807 - 1) }}":              "",
		"{{ (-9223372036854775807 - 1) // -1 }}":         "",
		"{{ (-9223372036854775807 - 1) % -1 }}":          "0",
		"{{ (-9223372036854775807 - 1) * -1 }}":          "",
		"{{ (-9223372036854775807 - 1)|abs }}":           "",
		"{{ 4294967296 * 4294967296 }}":                  "",
		"{{ 2 ** 63 }}":                                  "",
		"{{ 2 ** 62 }}":                                  "4611686018427387904",
		"{{ 3 ** 1000000000000 }}":                       "",
		"{{ (-1) ** 1000000000001 }}":                    "-1",
		"{{ long }} {{ long|tojson }} {{ [long] }}":      "1180591620717411303424 1180591620717411303424 [1180591620717411303424]",
		"{{ long + 1 }}":                                 "",
		"{{ long + 1.0 }}":                               "1.1805916207174113e+21",
		"{{ {long: 1}[long] }} {{ long == long + 0.0 }}": "1 True",
	} {
		got, err := renderSource(source, vars)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", source, got, err, want)
		}
	}
}

func TestFuncTakesNamedParameters(t *testing.T) {
	failure := errors.New("of the function")
	vars := NewDict(2)
	vars.Set("pair", Func("pair", []string{"a", "b"}, func(args []Value) (Value, error) {
		return &Tuple{Items: args}, nil
	}))
	vars.Set("fail", Func("fail", nil, func([]Value) (Value, error) { return nil, failure }))
	for source, want := range map[string]string{
		"{{ pair(1, 2) }}{{ pair(1, b=2) }}{{ pair(b=1, a=2) }}": "(1, 2)(1, 2)(2, 1)",
		"{{ pair(1) }}":          "",
		"{{ pair(1, 2, 3) }}":    "",
		"{{ pair(1, 2, b=3) }}":  "",
		"{{ pair(1, 2, c=3) }}":  "",
		"{{ pair is callable }}": "True",
	} {
		got, err := renderSource(source, vars)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", source, got, err, want)
		}
	}
	_, err := renderSource("\n{{ fail() }}", vars)
	var e *Error
	if !errors.Is(err, failure) || !errors.As(err, &e) || e.Line != 2 {
		t.Errorf("got %v, want the function's error with line 2", err)
	}
}

// TestTemplatesDoNotChangeTheirInput renders a template that tries.
func TestTemplatesDoNotChangeTheirInput(t *testing.T) {
	v, err := ParseJSON([]byte(`{"d": {"a": [1, 2, 3]}, "l": [3, 1, 2]}`))
	if err != nil {
		t.Fatal(err)
	}
	vars := v.(*Dict)
	before, err := Str(vars)
	if err != nil {
		t.Fatal(err)
	}
	got, err := renderSource(`{% set d = 5 %}{% set m = l[:2] + [9] %}{% set n = l[:1] + [8] %}{% set r = l|reverse|list %}`+
		`{% set s = l|sort %}{% set t = l|batch(2, 7)|list %}{% set u = l|list %}{{ m }}{{ n }}{{ r }}{{ s }}{{ t }}{{ u }}`, vars)
	if want := "[3, 1, 9][3, 8][2, 1, 3][1, 2, 3][[3, 1], [2, 7]][3, 1, 2]"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if after, _ := Str(vars); after != before {
		t.Errorf("the variables changed from %s to %s", before, after)
	}
}

func TestDictKeepsOrder(t *testing.T) {
	d := NewDict(0)
	for _, k := range strings.Split("z y x w v u t s r q p o z", " ") {
		d.Set(k, k+k)
	}
	var keys []string
	for k, v := range d.All() {
		keys = append(keys, k)
		if v != k+k {
			t.Errorf("%s is %v", k, v)
		}
	}
	if got := strings.Join(keys, ""); got != "zyxwvutsrqpo" || d.Len() != 12 {
		t.Errorf("got keys %s, length %d", got, d.Len())
	}
	if v, ok := d.Get("o"); !ok || v != "oo" {
		t.Errorf("o is %v, %t", v, ok)
	}
	if _, ok := d.Get("a"); ok {
		t.Error("a is there")
	}
}

func TestStrftime(t *testing.T) {
	at := time.Date(2026, 1, 4, 0, 7, 9, 120_000_000, time.FixedZone("CET", 3600))
	for format, want := range map[string]string{
		"":                        "",
		"%d %B %Y":                "04 January 2026",
		"%-d/%-m/%y":              "4/1/26",
		"%I:%M:%S %p|%l|%k|%-I":   "12:07:09 AM|12| 0|12",
		"%U %W %V %G %g %u %w %j": "01 00 01 2026 26 7 0 004",
		"%z %Z":                   "+0100 CET",
		"%c|%x|%X|%D|%T|%R|%r":    "Sun Jan  4 00:07:09 2026|01/04/26|00:07:09|01/04/26|00:07:09|00:07|12:07:09 AM",
		"%f%%%n%t%h%e%C":          "120000%\n\tJan 420",
		"%^a %_d":                 "SUN  4",
		"%Q %":                    "%Q %",
		"%s":                      "1767481629",
	} {
		if got := Strftime(at, format); got != want {
			t.Errorf("%q: got %q, want %q", format, got, want)
		}
	}
}
