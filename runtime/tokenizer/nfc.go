package tokenizer

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// nfc returns s in Unicode's normalisation form C as the reference computes it.
//
// It differs from norm.NFC in two ways. The reference knows the characters of
// Unicode 9, so that later marks are neither reordered nor composed
// (laterCharacters). And it has no limit on the marks that follow a letter, where
// package norm puts a joiner into runs of more than 30. Bytes that are not UTF-8
// stay as they are.
func nfc(s string) string {
	// What package norm calls normal is normal for the reference too: taking
	// later marks for letters leaves fewer marks to be ordered, and it never
	// makes two characters compose that did not.
	n := norm.NFC.QuickSpanString(s)
	if n == len(s) {
		return s
	}
	out := make([]byte, 0, len(s)+len(s)/8)
	var chars []nfcChar
	for {
		out = append(out, s[:n]...)
		if s = s[n:]; s == "" {
			return string(out)
		}
		end := boundary(s)
		chars = decompose(chars[:0], s[:end])
		reorder(chars)
		for _, c := range compose(chars) {
			if c.r >= invalidByte {
				out = append(out, byte(c.r-invalidByte))
				continue
			}
			out = utf8.AppendRune(out, c.r)
		}
		s = s[end:]
		n = norm.NFC.QuickSpanString(s)
	}
}

// boundary returns the length of the first rune of s and all that follow it that
// may combine or change places with what is before them.
func boundary(s string) int {
	_, i := utf8.DecodeRuneInString(s)
	for i < len(s) {
		p := norm.NFC.PropertiesString(s[i:])
		if p.BoundaryBefore() || p.Size() == 0 {
			break
		}
		i += p.Size()
	}
	return i
}

// nfcChar is a character on its way through normalisation.
type nfcChar struct {
	r rune
	// class is its canonical combining class: 0 for a starter.
	class uint8
}

// invalidByte is added to a byte that is not UTF-8 to make it a rune of its own.
const invalidByte = utf8.MaxRune + 1

// The Hangul syllables are composed by arithmetic (The Unicode Standard, 3.12).
const (
	hangulS, hangulL, hangulV, hangulT = 0xAC00, 0x1100, 0x1161, 0x11A7
	hangulLCount                       = 19
	hangulVCount                       = 21
	hangulTCount                       = 28
	hangulSCount                       = hangulLCount * hangulVCount * hangulTCount
)

func decompose(dst []nfcChar, s string) []nfcChar {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r < 0xC0: // no character before À decomposes or combines
			dst = append(dst, nfcChar{r: r})
		case r == utf8.RuneError && size == 1:
			dst = append(dst, nfcChar{r: invalidByte + rune(s[i])})
		case hangulS <= r && r < hangulS+hangulSCount:
			at := r - hangulS
			dst = append(dst,
				nfcChar{r: hangulL + at/(hangulVCount*hangulTCount)},
				nfcChar{r: hangulV + at%(hangulVCount*hangulTCount)/hangulTCount})
			if t := at % hangulTCount; t > 0 {
				dst = append(dst, nfcChar{r: hangulT + t})
			}
		default:
			p := norm.NFC.PropertiesString(s[i:])
			d := p.Decomposition()
			if d == nil || isLater(r) {
				dst = append(dst, nfcChar{r, combiningClass(r, p)})
				break
			}
			for len(d) > 0 {
				part, n := utf8.DecodeRune(d)
				dst = append(dst, nfcChar{part, combiningClass(part, norm.NFC.Properties(d))})
				d = d[n:]
			}
		}
		i += size
	}
	return dst
}

// combiningClass returns the class of r, whose properties are p.
func combiningClass(r rune, p norm.Properties) uint8 {
	if c := p.CCC(); c != 0 && !isLater(r) {
		return c
	}
	return 0
}

// reorder sorts every run of marks by class, keeping the order within a class.
func reorder(chars []nfcChar) {
	for i := 0; i < len(chars); i++ {
		if chars[i].class == 0 {
			continue
		}
		j := i
		for j < len(chars) && chars[j].class != 0 {
			j++
		}
		slices.SortStableFunc(chars[i:j], func(a, b nfcChar) int { return int(a.class) - int(b.class) })
		i = j
	}
}

// compose joins characters with the starter before them, in place, where
// nothing of the same or a higher class stands between (The Unicode Standard,
// D117).
func compose(chars []nfcChar) []nfcChar {
	out := chars[:0]
	starter := -1 // index into out
	for _, c := range chars {
		if starter >= 0 {
			last := out[len(out)-1]
			adjacent := len(out)-1 == starter
			if adjacent || last.class != 0 && last.class < c.class {
				if r, ok := composePair(out[starter].r, c.r); ok {
					out[starter].r = r
					continue
				}
			}
		}
		if c.class == 0 {
			starter = len(out)
		}
		out = append(out, c)
	}
	return out
}

func composePair(a, b rune) (rune, bool) {
	if b < 0x300 || b > utf8.MaxRune || a > utf8.MaxRune {
		return 0, false
	}
	if hangulL <= a && a < hangulL+hangulLCount && hangulV <= b && b < hangulV+hangulVCount {
		return hangulS + ((a-hangulL)*hangulVCount+b-hangulV)*hangulTCount, true
	}
	if hangulS <= a && a < hangulS+hangulSCount && (a-hangulS)%hangulTCount == 0 &&
		hangulT < b && b < hangulT+hangulTCount {
		return a + b - hangulT, true
	}
	var pair, joined [2 * utf8.UTFMax]byte
	p := utf8.AppendRune(pair[:0], b)
	if norm.NFC.Properties(p).BoundaryBefore() {
		return 0, false // b combines with nothing before it
	}
	p = utf8.AppendRune(utf8.AppendRune(pair[:0], a), b)
	j := norm.NFC.Append(joined[:0], p...)
	r, size := utf8.DecodeRune(j)
	if size != len(j) || isLater(r) {
		return 0, false
	}
	return r, true
}

func isLater(r rune) bool {
	_, ok := slices.BinarySearchFunc(laterCharacters, r, func(x runeRange, r rune) int {
		switch {
		case x.hi < r:
			return -1
		case x.lo > r:
			return 1
		}
		return 0
	})
	return ok
}
