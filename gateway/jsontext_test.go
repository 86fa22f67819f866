package gateway

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestStringsAreEscapedLikeEncodingJSON(t *testing.T) {
	for _, s := range []string{
		"", "plain", `quote " backslash \`, "\n\r\t\b\f\x00\x1f\x7f", "é漢😀", "\u2028\u2029", "<>&'", "\xff\xc3(", "a\xe2\x82", strings.Repeat("x\n", 1000),
	} {
		checkString(t, s)
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\n\x00\xff\u2028é")
	f.Fuzz(checkString)
}

// checkString compares with encoding/json in both directions: what we write is
// valid, and reads back as what encoding/json would have written.
func checkString(t *testing.T, s string) {
	got := appendString([]byte("x"), s)[1:]
	if !utf8.Valid(got) || !json.Valid(got) {
		t.Fatalf("%q became %q", s, got)
	}
	var back, want string
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	std, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(std, &want); err != nil {
		t.Fatal(err)
	}
	if back != want {
		t.Errorf("%q reads back as %q, want %q", s, back, want)
	}
}

func TestLogprobsAreAlwaysNumbers(t *testing.T) {
	for _, tc := range []struct {
		in   float32
		want string
	}{
		{-.25, "-0.25"}, {0, "0"}, {float32(math.Copysign(0, -1)), "0"}, {1e-9, "0"}, {-1e-7, "-1e-07"},
		{float32(math.Inf(-1)), "-9999"}, {float32(math.Inf(1)), "0"}, {float32(math.NaN()), "-9999"},
	} {
		if got := string(appendLogprob(nil, tc.in)); got != tc.want || !json.Valid([]byte(got)) {
			t.Errorf("%v: %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestDepthIgnoresBracketsInStrings(t *testing.T) {
	for _, tc := range []struct {
		in   string
		deep bool
	}{
		{`{"a":[1,[2]]}`, false}, {`[[[[1]]]]`, true}, {`{"a":"[[[[[["}`, false}, {`{"a":"\"[[[[[["}`, false}, {`["\\",[[[1]]]]`, true},
	} {
		if got := !jsonDepth([]byte(tc.in), 3); got != tc.deep {
			t.Errorf("%s: deep %v", tc.in, got)
		}
	}
}
