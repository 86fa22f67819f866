package tokenizer

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestStreamEqualsDecode draws any ids, unknown ones and parts of UTF-8
// sequences among them.
func TestStreamEqualsDecode(t *testing.T) {
	for _, name := range familyNames(t) {
		tok := family(t, name)
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			ids := rapid.SliceOf(rapid.OneOf(
				rapid.Int32Range(-1, int32(tok.VocabSize())),
				rapid.Int32Range(0, 300), // where single bytes and special tokens are
			)).Draw(t, "ids")
			skip := rapid.Bool().Draw(t, "skipSpecial")
			d := tok.NewDecoder(skip)
			var got strings.Builder
			for _, id := range ids {
				part := d.Push(id)
				if !utf8.ValidString(part) {
					t.Fatalf("Push(%d) returned %q", id, part)
				}
				got.WriteString(part)
			}
			got.WriteString(d.Flush())
			if want := tok.Decode(ids, skip); got.String() != want {
				t.Fatalf("streamed %q, decoded %q", got.String(), want)
			}
		}))
	}
}

// TestInvalidUTF8BecomesReplacementCharacters takes its cases from The Unicode
// Standard, tables 3-8 to 3-11 (section 3.9).
func TestInvalidUTF8BecomesReplacementCharacters(t *testing.T) {
	tok := family(t, "smollm")
	tests := []struct{ bytes, want string }{
		{"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", strings.Repeat(replacement, 8) + "A"},
		{"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", strings.Repeat(replacement, 8) + "A"},
		{"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", strings.Repeat(replacement, 5) + "A" + strings.Repeat(replacement, 2) + "B"},
		{"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", strings.Repeat(replacement, 4) + "A"},
		{"\xF0\x9F\x98", replacement},
	}
	for _, test := range tests {
		ids := make([]int32, len(test.bytes))
		for i := range ids {
			ids[i] = tok.model.(*byteLevel).symbols[test.bytes[i]]
		}
		if got := tok.Decode(ids, false); got != test.want {
			t.Errorf("byte by byte: % X gives %q, want %q", test.bytes, got, test.want)
		}
		// The same bytes as one token.
		whole := *tok
		whole.vocab = vocabulary{names: []string{"x"}, kinds: []kind{normal}, data: []byte(test.bytes), ends: []uint32{uint32(len(test.bytes))}}
		if got := whole.Decode([]int32{0}, false); got != test.want {
			t.Errorf("at once: % X gives %q, want %q", test.bytes, got, test.want)
		}
	}
}

func TestStreamHoldsBackIncompleteSequences(t *testing.T) {
	tok := family(t, "smollm")
	d := tok.NewDecoder(true)
	symbols := tok.model.(*byteLevel).symbols
	for i, want := range []string{"", "", "", "😀", "a"} {
		if got := d.Push(symbols["😀a"[i]]); got != want {
			t.Errorf("byte %d: %q, want %q", i, got, want)
		}
	}
	if got := d.Flush(); got != "" {
		t.Errorf("Flush returned %q", got)
	}
}

func TestSentencePieceTakesItsLeadingSpaceAway(t *testing.T) {
	tok := family(t, "spm")
	ids := tok.Encode("the model", EncodeOptions{})
	withBOS := tok.Encode("the model", EncodeOptions{AddSpecial: true})
	tests := []struct {
		what string
		d    *Decoder
		ids  []int32
		want string
	}{
		{"at the beginning", tok.NewDecoder(true), ids, "the model"},
		{"after a skipped token", tok.NewDecoder(true), withBOS, "the model"},
		{"after a token that is shown", tok.NewDecoder(false), withBOS, "<s> the model"},
		{"in a continuation", tok.NewContinuation(true), ids, " the model"},
	}
	for _, test := range tests {
		got := ""
		for _, id := range test.ids {
			got += test.d.Push(id)
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}
	for _, text := range []string{" two", "  three", "", " "} {
		if got := tok.Decode(tok.Encode(text, EncodeOptions{}), true); got != text {
			t.Errorf("round trip of %q gives %q", text, got)
		}
	}
}
