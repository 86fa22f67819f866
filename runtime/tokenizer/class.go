package tokenizer

import (
	"sync"
	"unicode/utf8"
)

// The character classes that the pre-tokenizers' regular expressions name. A
// rune has one of letter, number and space, or none of them. digit is what the
// pre-tokenizer Digits isolates: every number, and a few runes more. word is \w.
const (
	letter = 1 << iota
	number
	space
	digit
	word
)

type runeRange struct{ lo, hi rune }

// classTable gives a rune's class bits in two look-ups. Most of the 4352 pages
// of 256 runes are alike, so they share storage.
type classTable struct {
	page  [(utf8.MaxRune + 1) >> 8]uint8
	class [][256]uint8
}

// classes is built on first use: a program that opens no tokenizer pays nothing.
//
// The tables are the reference implementation's rather than those of package
// unicode: its regular expressions follow Unicode 16 and its Digits Unicode 17,
// whichever version the Go release in use has.
var classes = sync.OnceValue(func() *classTable {
	flat := make([]uint8, utf8.MaxRune+1)
	for _, set := range []struct {
		ranges []runeRange
		bits   uint8
	}{
		{letterRanges, letter},
		{numberRanges, number | digit},
		{digitOnlyRanges, digit},
		{wordRanges, word},
		{spaceRanges, space},
	} {
		for _, r := range set.ranges {
			for c := r.lo; c <= r.hi; c++ {
				flat[c] |= set.bits
			}
		}
	}
	t := &classTable{}
	seen := map[[256]uint8]uint8{}
	for p := range t.page {
		page := [256]uint8(flat[p<<8:])
		i, ok := seen[page]
		if !ok {
			i = uint8(len(t.class))
			seen[page] = i
			t.class = append(t.class, page)
		}
		t.page[p] = i
	}
	return t
})

// at returns the class of the rune at s[i:] and its size in bytes. A byte that
// is not UTF-8 is a rune of no class and of size 1.
func (t *classTable) at(s string, i int) (class uint8, size int) {
	if c := s[i]; c < utf8.RuneSelf {
		return t.class[0][c], 1
	}
	r, size := utf8.DecodeRuneInString(s[i:])
	return t.class[t.page[r>>8]][r&0xff], size
}
