package tokenizer

// byteLevel encodes with byte-level BPE: a pre-tokenizer cuts the text into
// pieces, and the bytes of each piece merge.
type byteLevel struct {
	table     *classTable
	scan      scanner
	digits    bool // the pre-tokenizer Digits comes before scan
	addPrefix bool // a segment that does not begin with a space gets one

	merges  merges
	symbols [256]int32 // the token of each byte; noToken for a byte the vocabulary lacks
	// unknown stands for a byte without a token, once for a run of them when
	// fuse is set. Without it (noToken) such bytes are dropped.
	unknown int32
	fuse    bool
	joined  bytePairs
	// whole holds the tokens that a piece may equal before any merging; nil
	// unless the model says ignore_merges.
	whole map[string]int32
	cache *pieceCache
}

func (b *byteLevel) encode(dst []int32, segment string, _ bool) []int32 {
	if b.addPrefix && segment != "" && segment[0] != ' ' {
		segment = " " + segment
	}
	if !b.digits {
		return b.encodeScanned(dst, segment)
	}
	eachDigit(b.table, segment, func(part string) { dst = b.encodeScanned(dst, part) })
	return dst
}

func (b *byteLevel) encodeScanned(dst []int32, s string) []int32 {
	for i := 0; i < len(s); {
		end := b.scan(b.table, s, i)
		dst = b.encodePiece(dst, s[i:end])
		i = end
	}
	return dst
}

func (b *byteLevel) encodePiece(dst []int32, piece string) []int32 {
	slot := b.cache.slot(piece)
	if slot == nil {
		return b.mergePiece(dst, piece)
	}
	if dst, ok := slot.Load().append(dst, piece); ok {
		return dst
	}
	n := len(dst)
	dst = b.mergePiece(dst, piece)
	store(slot, piece, dst[n:])
	return dst
}

func (b *byteLevel) mergePiece(dst []int32, piece string) []int32 {
	if id, ok := b.whole[piece]; ok {
		return append(dst, id)
	}
	if len(piece) <= shortPiece {
		return b.mergeBytes(dst, piece)
	}
	// A long piece, of Chinese or base64, is cut where two neighbouring bytes
	// stand side by side in no token: no merge can join them. A byte without a
	// token is not cut off, because its neighbours may come to stand together.
	start := 0
	for i := 1; i < len(piece); i++ {
		left, right := piece[i-1], piece[i]
		if !b.joined.has(left, right) && b.symbols[left] != noToken && b.symbols[right] != noToken {
			dst = b.mergeBytes(dst, piece[start:i])
			start = i
		}
	}
	return b.mergeBytes(dst, piece[start:])
}

// mergeBytes merges the bytes of s, which is not empty.
func (b *byteLevel) mergeBytes(dst []int32, s string) []int32 {
	var short [shortPiece]int32
	symbols := short[:0]
	if len(s) > len(short) {
		symbols = make([]int32, 0, len(s))
	}
	unknown := false // the last byte had no token
	for i := range len(s) {
		id := b.symbols[s[i]]
		if id == noToken {
			if b.unknown == noToken || unknown && b.fuse {
				continue
			}
			id, unknown = b.unknown, true
		} else {
			unknown = false
		}
		symbols = append(symbols, id)
	}
	return b.merges.apply(dst, symbols)
}

// bytePairs is a set of pairs of bytes.
type bytePairs [256][256 / 64]uint64

func (p *bytePairs) has(a, b byte) bool { return p[a][b>>6]>>(b&63)&1 != 0 }

// addToken enters the pairs that stand side by side in a token.
func (p *bytePairs) addToken(name string) {
	var buf [64]byte
	bytes := appendByteLevel(buf[:0], name)
	for i := 1; i < len(bytes); i++ {
		p[bytes[i-1]][bytes[i]>>6] |= 1 << (bytes[i] & 63)
	}
}
