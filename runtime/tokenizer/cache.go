package tokenizer

import (
	"hash/maphash"
	"sync/atomic"
)

const (
	// cacheSlots bounds the cache to 2 MiB of entries and 256 KiB of slots. The
	// words of a long English text, with their spaces, are some ten thousand.
	cacheSlots = 1 << 15
	// An entry fills one 64-byte cache line.
	maxCachedPiece  = 34
	maxCachedTokens = 7
)

// pieceCache remembers the tokens of recent short pieces. It is direct-mapped:
// a new piece simply takes its slot. Entries are immutable once stored, so that
// readers and writers need no lock.
type pieceCache struct {
	seed  maphash.Seed
	slots [cacheSlots]atomic.Pointer[cachedPiece]
}

type cachedPiece struct {
	ids        [maxCachedTokens]int32
	text       [maxCachedPiece]byte
	n, textLen uint8
}

func newPieceCache() *pieceCache { return &pieceCache{seed: maphash.MakeSeed()} }

// slot returns the only place where piece may be; nil when it is too long to be
// remembered.
func (c *pieceCache) slot(piece string) *atomic.Pointer[cachedPiece] {
	if len(piece) > maxCachedPiece {
		return nil
	}
	return &c.slots[maphash.String(c.seed, piece)%cacheSlots]
}

// append appends the tokens of piece to dst when slot has them.
func (e *cachedPiece) append(dst []int32, piece string) ([]int32, bool) {
	if e == nil || string(e.text[:e.textLen]) != piece {
		return dst, false
	}
	return append(dst, e.ids[:e.n]...), true
}

// store puts the tokens of piece into slot unless they are too many.
func store(slot *atomic.Pointer[cachedPiece], piece string, ids []int32) {
	if len(ids) > maxCachedTokens {
		return
	}
	e := &cachedPiece{n: uint8(len(ids)), textLen: uint8(len(piece))}
	copy(e.ids[:], ids)
	copy(e.text[:], piece)
	slot.Store(e)
}
