package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// TestNFCEqualsReferenceForAllOfUnicode puts every code point of the planes that
// have normalisable characters beside characters that combine with it or change
// places with it. The hash is that of the reference (testdata/gen_golden.py).
func TestNFCEqualsReferenceForAllOfUnicode(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "nfc.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	var points []rune
	add := func(from, to rune) {
		for c := from; c < to; c++ {
			points = append(points, c)
		}
	}
	add(0, 0xD800)
	add(0xE000, 0x20000)
	add(0x2F800, 0x2FA20)
	add(0xE0000, 0xE0200)
	h := sha256.New()
	for _, around := range [][2]string{
		{"", ""}, {"a\u0345", ""}, {"a", "\u0334"}, {"a\u0301", "\u0316"}, {"\u1100", "\u11a8"}, {"", "\u0338"}, {"\U00011935", "\u0300"},
	} {
		var s strings.Builder
		for _, c := range points {
			s.WriteString(around[0])
			s.WriteRune(c)
			s.WriteString(around[1])
			s.WriteByte('\n')
		}
		h.Write([]byte(nfc(s.String())))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != string(want) {
		t.Errorf("NFC of all of Unicode hashes to %s; the reference's to %s", got, want)
	}
}

// TestNFCEqualsPackageNorm draws from characters that both know and runs of
// marks short enough for package norm.
func TestNFCEqualsPackageNorm(t *testing.T) {
	alphabet := []rune("aeoACN \u0300\u0301\u0302\u0303\u0308\u030a\u0316\u0323\u0327\u0328\u0334\u0338\u0345" +
		"\u00e9\u1ec7\u212b\u2126\u1100\u1161\u11a8\uac00\uac01\u0915\u093c\u09c7\u09be\u0b47\u0b56\u3099\u30ab\U0001d15e中\n")
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOfN(rapid.SampledFrom(alphabet), 0, 29).Draw(t, "runes"))
		if got, want := nfc(s), norm.NFC.String(s); got != want {
			t.Fatalf("nfc(%+q) = %+q, want %+q", s, got, want)
		}
	})
}

func TestNFCOrdersMarksWithoutLimit(t *testing.T) {
	const n = 1000 // package norm would put a joiner after 30
	got := nfc("a" + strings.Repeat("\u0301\u0323", n))
	want := "\u1ea1" + strings.Repeat("\u0323", n-1) + strings.Repeat("\u0301", n)
	if got != want {
		t.Errorf("got %d bytes, want %d: %+.60q", len(got), len(want), got)
	}
}

func TestNFCKeepsInvalidBytes(t *testing.T) {
	const s = "e\u0301\xff\xc3e\u0301\xe4\xbd"
	if got, want := nfc(s), "\u00e9\xff\xc3\u00e9\xe4\xbd"; got != want {
		t.Errorf("nfc(%q) = %q, want %q", s, got, want)
	}
}
