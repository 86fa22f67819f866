package tokenizer

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestClassesAgreeWithPackageUnicode compares the classes, which are the
// reference's, with those of the Go release. They must agree on every rune to
// which both give a class; what only one of them knows is newer than the
// other's version of Unicode and is logged.
func TestClassesAgreeWithPackageUnicode(t *testing.T) {
	table := classes()
	only := map[string]int{}
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		class, size := table.at(string(r), 0)
		class &^= word
		if size != utf8.RuneLen(r) {
			t.Fatalf("%U: size %d", r, size)
		}
		want := uint8(0)
		switch {
		case unicode.IsLetter(r):
			want = letter
		case unicode.IsNumber(r):
			want = number | digit
		case unicode.IsSpace(r):
			want = space
		}
		switch {
		case class == want:
		case want == 0 && !unicode.In(r, unicode.M, unicode.P, unicode.S, unicode.Cc, unicode.Cf, unicode.Co):
			only["reference"]++
		case class == 0:
			only["Go"]++
		default:
			t.Errorf("%U: class %b, package unicode says %b", r, class, want)
		}
	}
	t.Logf("Go has Unicode %s; runes that only one has: %v", unicode.Version, only)
	if len(table.class) > 256 {
		t.Errorf("%d distinct pages do not fit a byte", len(table.class))
	}
}

func TestPreTokenizersCutAsTheirExpressionsSay(t *testing.T) {
	tests := []struct {
		scan scanner
		text string
		want []string
	}{
		{scanGPT2, "it's I'LL 'sad", []string{"it", "'s", " I", "'", "LL", " '", "sad"}},
		{scanGPT2, "a  b   ", []string{"a", " ", " b", "   "}},
		{scanGPT2, "x\n\n y12345", []string{"x", "\n\n", " y", "12345"}},
		{scanGPT2, " 12 (x)!", []string{" 12", " (", "x", ")!"}},
		{scanLlama3, "I'LL it'\u017f", []string{"I", "'LL", " it", "'\u017f"}},
		{scanLlama3, "12345 (hello)\r\n\r\n", []string{"123", "45", " (", "hello", ")\r\n\r\n"}},
		{scanLlama3, "a \n \n  b", []string{"a", " \n \n", " ", " b"}},
		{scanLlama3, "\tx\t\ty", []string{"\tx", "\t", "\ty"}},
		{scanLlama3, "中文，字", []string{"中文", "，字"}},
		{scanQwen2, "x123", []string{"x", "1", "2", "3"}},
		{scanQwen2, "e\u0301a", []string{"e", "\u0301a"}},
	}
	for _, test := range tests {
		var got []string
		for i := 0; i < len(test.text); {
			end := test.scan(classes(), test.text, i)
			got = append(got, test.text[i:end])
			i = end
		}
		if len(got) != len(test.want) {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
			continue
		}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%q: %q, want %q", test.text, got, test.want)
				break
			}
		}
	}
}
