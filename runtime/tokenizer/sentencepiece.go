package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// meta is the rune that SentencePiece writes for a space.
const meta = "▁"

// prefixMode says where a segment gets a leading space.
type prefixMode uint8

const (
	prefixNever  prefixMode = iota
	prefixFirst             // the one at the beginning of the text
	prefixAlways            // every one, also after an added token
)

// sentencePiece encodes with SentencePiece's BPE: the runes of the text merge,
// and a rune that the vocabulary lacks is spelled in bytes.
//
// There is no pre-tokenizer: a whole text is one piece. It is cut all the same,
// wherever two neighbouring runes stand side by side in no token, because then
// no merge can ever join them. This keeps most pieces as short as words.
type sentencePiece struct {
	// metaspace, unless nil, is done to each segment first. When it is nil the
	// normaliser has written the spaces as meta already.
	metaspace *metaspace

	merges  merges
	symbols map[rune]int32
	bytes   [256]int32
	joined  runePairs
	cache   *pieceCache
}

// metaspace is the pre-tokenizer of that name: it writes spaces as meta and puts
// one in front of a segment that does not begin with one.
type metaspace struct {
	prefix prefixMode
	split  bool // cut before every space
}

func (m *metaspace) apply(s string, first bool) string {
	s = strings.ReplaceAll(s, " ", meta)
	if !strings.HasPrefix(s, meta) && (m.prefix == prefixAlways || m.prefix == prefixFirst && first) {
		s = meta + s
	}
	return s
}

func (sp *sentencePiece) encode(dst []int32, segment string, first bool) []int32 {
	if segment == "" {
		return dst
	}
	split := false
	if sp.metaspace != nil {
		segment, split = sp.metaspace.apply(segment, first), sp.metaspace.split
	}
	previous, size := utf8.DecodeRuneInString(segment)
	start := 0
	for i := size; i < len(segment); i += size {
		var r rune
		if r, size = rune(segment[i]), 1; r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(segment[i:])
		}
		if !sp.joined.has(previous, r) || split && r == '▁' {
			dst = sp.encodePiece(dst, segment[start:i])
			start = i
		}
		previous = r
	}
	return sp.encodePiece(dst, segment[start:])
}

func (sp *sentencePiece) encodePiece(dst []int32, piece string) []int32 {
	slot := sp.cache.slot(piece)
	if slot == nil {
		return sp.mergePiece(dst, piece)
	}
	if dst, ok := slot.Load().append(dst, piece); ok {
		return dst
	}
	n := len(dst)
	dst = sp.mergePiece(dst, piece)
	store(slot, piece, dst[n:])
	return dst
}

func (sp *sentencePiece) mergePiece(dst []int32, piece string) []int32 {
	var short [shortPiece]int32
	symbols := short[:0]
	if len(piece) > len(short) {
		symbols = make([]int32, 0, len(piece))
	}
	for i := 0; i < len(piece); {
		r, size := utf8.DecodeRuneInString(piece[i:])
		// U+FFFD of size 1 is a byte that is not UTF-8.
		if id, ok := sp.symbols[r]; ok && (r != utf8.RuneError || size > 1) {
			symbols = append(symbols, id)
			i += size
			continue
		}
		for end := i + size; i < end; i++ {
			symbols = append(symbols, sp.bytes[piece[i]])
		}
	}
	return sp.merges.apply(dst, symbols)
}

// runePairs is a set of pairs of runes. Those of ASCII, the bulk of most texts,
// are a bitmap.
type runePairs struct {
	ascii [128][128 / 64]uint64
	other map[uint64]struct{}
}

func (p *runePairs) add(a, b rune) {
	if a|b < utf8.RuneSelf {
		p.ascii[a][b>>6] |= 1 << (b & 63)
		return
	}
	p.other[uint64(a)<<32|uint64(b)] = struct{}{}
}

func (p *runePairs) has(a, b rune) bool {
	if a|b < utf8.RuneSelf {
		return p.ascii[a][b>>6]>>(b&63)&1 != 0
	}
	_, ok := p.other[uint64(a)<<32|uint64(b)]
	return ok
}

// addToken enters the pairs that stand side by side in a token.
func (p *runePairs) addToken(name string) {
	previous := rune(-1)
	for _, r := range name {
		if previous >= 0 {
			p.add(previous, r)
		}
		previous = r
	}
}
