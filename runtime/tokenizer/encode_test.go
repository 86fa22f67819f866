package tokenizer

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// lossless lists the families whose vocabulary has every byte, so that decoding
// gives back every text.
var lossless = []string{"smollm", "llama3", "qwen2", "spm"}

func roundTrip(t testing.TB, name string, tok *Tokenizer, text string) {
	t.Helper()
	want := strings.ToValidUTF8(text, "")
	if want != text {
		return // decoded with replacement characters
	}
	switch name {
	case "qwen2":
		want = nfc(text)
	case "spm":
		want = strings.ReplaceAll(text, meta, " ")
	}
	for _, special := range []bool{false, true} {
		ids := tok.Encode(text, EncodeOptions{ParseSpecial: special})
		got := tok.Decode(ids, false)
		if special && strings.Contains(text, "<") {
			continue // a special token in the text may swallow spaces around it
		}
		if got != want {
			t.Errorf("%s: %q comes back as %q", name, text, got)
		}
	}
}

func TestDecodingGivesTheTextBack(t *testing.T) {
	for _, name := range lossless {
		tok := family(t, name)
		for _, text := range corpus(t) {
			if strings.Contains(text, "<mask>") || strings.Contains(text, "<|user|>") {
				continue // they swallow the white space beside them
			}
			roundTrip(t, name, tok, text)
		}
	}
}

func FuzzEncode(f *testing.F) {
	toks := map[string]*Tokenizer{}
	for _, name := range familyNames(f) {
		toks[name] = family(f, name)
	}
	for _, s := range []string{"", "it's  12\r\n", "<|im_end|> <s>▁", "e\u0301\xff\xe4\xbd", "\u1100\u1161", strings.Repeat("a ", 70)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, tok := range toks {
			ids := tok.Encode(text, EncodeOptions{})
			var bytes []byte
			for _, id := range ids {
				if tok.IsSpecial(id) {
					t.Fatalf("%s: %q forged special token %d", name, text, id)
				}
				if tok.Bytes(id) == nil {
					t.Fatalf("%s: %q gives unknown id %d", name, text, id)
				}
				bytes = append(bytes, tok.Bytes(id)...)
			}
			// Bytes that are not UTF-8 keep their value in the tokens.
			if name == "smollm" && string(bytes) != text {
				t.Fatalf("%q has tokens of bytes %q", text, bytes)
			}
			if slices.Contains(lossless, name) && utf8.ValidString(text) &&
				!strings.Contains(text, "<mask>") && !strings.Contains(text, "<|user|>") {
				roundTrip(t, name, tok, text)
			}
		}
	})
}

// TestTextCannotForgeSpecialTokens writes every special token of each vocabulary
// out in text.
func TestTextCannotForgeSpecialTokens(t *testing.T) {
	for _, name := range familyNames(t) {
		tok := family(t, name)
		for id := range int32(tok.VocabSize()) {
			if !tok.IsSpecial(id) {
				continue
			}
			text := "x " + tok.Token(id) + tok.Token(id) + " y"
			if got := tok.Encode(text, EncodeOptions{}); slices.Contains(got, id) {
				t.Errorf("%s: %q becomes special token %d without ParseSpecial", name, text, id)
			}
			if got := tok.Encode(text, EncodeOptions{ParseSpecial: true}); !slices.Contains(got, id) && name != "spm-added" {
				t.Errorf("%s: %q does not become special token %d with ParseSpecial", name, text, id)
			}
		}
	}
}

// TestMergeRulesCannotMakeSpecialTokens has a vocabulary whose rules lead from
// ordinary text to a special token.
func TestMergeRulesCannotMakeSpecialTokens(t *testing.T) {
	tok, err := FromJSON([]byte(`{
		"added_tokens": [{"id": 3, "content": "abc", "special": true}],
		"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
		"decoder": {"type": "ByteLevel"},
		"model": {"type": "BPE", "ignore_merges": true, "vocab": {"a": 0, "b": 1, "c": 2, "abc": 3, "ab": 4}, "merges": ["a b", "ab c"]}
	}`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Encode("abc", EncodeOptions{}), []int32{4, 2}; !slices.Equal(got, want) {
		t.Errorf("abc becomes %v, want %v", got, want)
	}
}

func TestLongRunsOfOneLetter(t *testing.T) {
	const size = 1 << 18
	for _, name := range lossless {
		tok := family(t, name)
		for _, unit := range []string{"a", " ", "\n", "中", "ab", "\u0301\u0323"} {
			text := strings.Repeat(unit, size/len(unit))
			want := text
			if name == "qwen2" {
				want = nfc(text)
			}
			if got := tok.Decode(tok.Encode(text, EncodeOptions{}), false); got != want {
				t.Errorf("%s: a run of %q comes back changed", name, unit)
			}
		}
	}
}

func TestConcurrentEncodingGivesTheSameIds(t *testing.T) {
	texts := corpus(t)[:1500]
	for _, name := range lossless {
		tok := family(t, name)
		want := make([][]int32, len(texts))
		for i, text := range texts {
			want[i] = tok.Encode(text, EncodeOptions{AddSpecial: true})
		}
		fresh := family(t, name) // with an empty cache
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for k := range texts {
					i := (k*(g+1) + g) % len(texts)
					if got := fresh.Encode(texts[i], EncodeOptions{AddSpecial: true}); !slices.Equal(got, want[i]) {
						t.Errorf("%s: %q differs when encoded concurrently", name, texts[i])
						return
					}
				}
			})
		}
		wg.Wait()
	}
}
