package tokenizer

import (
	"fmt"
	"unicode/utf8"
)

// Limits on what a tokenizer file may ask for, several times what large published
// ones have. Llama-3's has 128 thousand tokens of up to 256 bytes, 280 thousand
// merge rules and 9 MB.
const (
	maxVocab      = 1 << 20
	maxMerges     = 1 << 22
	maxTokenBytes = 2048
	maxFileBytes  = 256 << 20
)

// kind says what an id stands for.
type kind uint8

const (
	absent kind = iota // a hole in the ids
	normal
	added   // found in the text before anything else is
	special // likewise, but only where special tokens are parsed
)

// vocabulary maps ids to spellings and to the bytes they stand for.
type vocabulary struct {
	names []string
	kinds []kind
	ids   map[string]int32
	// data holds the bytes of all tokens one after the other; those of token id
	// end at ends[id].
	data []byte
	ends []uint32
}

func (v *vocabulary) has(id int32) bool {
	return id >= 0 && int(id) < len(v.kinds) && v.kinds[id] != absent
}

func (v *vocabulary) bytes(id int32) []byte {
	if !v.has(id) {
		return nil
	}
	start := uint32(0)
	if id > 0 {
		start = v.ends[id-1]
	}
	return v.data[start:v.ends[id]:v.ends[id]]
}

// put enters a token. It refuses ids out of bounds and an id that already has
// another spelling; field names the place in the file for the error.
func (v *vocabulary) put(field, name string, id int64, k kind) error {
	switch {
	case id < 0 || id >= maxVocab:
		return fmt.Errorf("%s: id %d of %.40q is outside [0, %d)", field, id, name, maxVocab)
	case len(name) > maxTokenBytes:
		return fmt.Errorf("%s: token %d has %d bytes, more than %d", field, id, len(name), maxTokenBytes)
	}
	for int(id) >= len(v.kinds) {
		v.names = append(v.names, "")
		v.kinds = append(v.kinds, absent)
	}
	if v.kinds[id] != absent && v.names[id] != name {
		return fmt.Errorf("%s: id %d stands for both %.40q and %.40q", field, id, v.names[id], name)
	}
	v.names[id], v.kinds[id] = name, k
	v.ids[name] = int32(id)
	return nil
}

// seal computes the bytes of every token. text appends those of a token that
// was not added; an added token stands for its spelling.
func (v *vocabulary) seal(text func(dst []byte, name string) []byte, spell func(dst []byte, name string) []byte) {
	v.data = []byte{} // not nil: the bytes of an empty token are empty, not unknown
	v.ends = make([]uint32, len(v.names))
	for id, name := range v.names {
		switch v.kinds[id] {
		case normal:
			v.data = text(v.data, name)
		case added, special:
			v.data = spell(v.data, name)
		}
		v.ends[id] = uint32(len(v.data))
	}
}

// The byte-level alphabet gives each byte a printable rune (GPT-2's
// bytes_to_unicode): itself where it is printable in Latin-1, otherwise the next
// of U+0100, U+0101, ...
var (
	byteRune [256]rune
	runeByte [0x100 + 68]int16 // -1 where a rune stands for no byte; 68 bytes are not printable
)

func init() {
	for i := range runeByte {
		runeByte[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if r < 0x21 || 0x7E < r && r < 0xA1 || r == 0xAD {
			r = next
			next++
		}
		byteRune[b] = r
		runeByte[r] = int16(b)
	}
}

// appendByteLevel appends the bytes that a byte-level token stands for. A token
// with a rune outside the alphabet stands for its spelling.
func appendByteLevel(dst []byte, name string) []byte {
	start := len(dst)
	for _, r := range name {
		if int(r) >= len(runeByte) || runeByte[r] < 0 {
			return append(dst[:start], name...)
		}
		dst = append(dst, byte(runeByte[r]))
	}
	return dst
}

// isByteLevel says whether name is written in the byte-level alphabet.
func isByteLevel(name string) bool {
	for _, r := range name {
		if int(r) >= len(runeByte) || runeByte[r] < 0 {
			return false
		}
	}
	return utf8.ValidString(name)
}

// byteToken returns the byte that a SentencePiece token of the form <0x1F>
// stands for.
func byteToken(name string) (byte, bool) {
	if len(name) != 6 || name[:3] != "<0x" || name[5] != '>' {
		return 0, false
	}
	hi, lo := hexDigit(name[3]), hexDigit(name[4])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

func isByteToken(name string) bool { _, ok := byteToken(name); return ok }

// hexDigit returns the value of a digit as SentencePiece writes it, in capitals;
// -1 for others.
func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
