package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math"
	"slices"

	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/plan"
)

// chain hashes a text block by block. The key of a prefix depends on everything
// that its keys and values depend on, and on a salt, the tenant: one tenant
// can neither use nor, by timing, detect what another has read.
type chain struct {
	h    hash.Hash
	last kv.Key
	buf  []byte
}

// newChain begins the chain of a sequence.
func newChain(salt string, l *plan.Layout, total int) *chain {
	c := &chain{h: sha256.New()}
	p := l.Plan()
	// Writes to a hash do not fail.
	number := func(n uint64) { c.buf = binary.LittleEndian.AppendUint64(c.buf, n) }
	number(uint64(len(salt)))
	c.buf = append(append(c.buf, salt...), p.Span...)
	number(uint64(p.Floor))
	if p.Span == plan.SpanLength {
		number(uint64(plan.Bucket(total)))
	}
	for _, layer := range p.Heads {
		for _, i := range layer {
			number(uint64(p.Rules[i].Alpha))
			number(math.Float64bits(p.Rules[i].Beta))
		}
	}
	_, _ = c.h.Write(c.buf)
	c.h.Sum(c.last[:0])
	return c
}

// next returns the key of the prefix that ends with this block.
func (c *chain) next(block []int32) kv.Key {
	c.buf = append(c.buf[:0], c.last[:]...)
	for _, t := range block {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(t))
	}
	c.h.Reset()
	_, _ = c.h.Write(c.buf)
	c.h.Sum(c.last[:0])
	return c.last
}

// hashPrompt computes the keys of the whole blocks of a prompt. Submit's
// goroutine does it. Sequences with different salts share nothing.
func (s *sequence) hashPrompt(salt string) {
	s.chain = newChain(salt, s.layout, s.limit)
	s.extendKeys(len(s.req.Prompt))
}

// extendKeys computes the keys of all whole blocks of the first tokens.
func (s *sequence) extendKeys(tokens int) {
	var block [plan.BlockSize]int32
	for n := len(s.keys) + 1; n*plan.BlockSize <= tokens; n++ {
		s.keys = append(s.keys, s.chain.next(s.appendTokens(block[:0], (n-1)*plan.BlockSize, n*plan.BlockSize)))
	}
}

// usableKeys returns the keys, of those computed, that name prefixes which the
// sequence may continue: all that leave a token to compute.
func (s *sequence) usableKeys() []kv.Key {
	return s.keys[:min(len(s.keys), (s.total()-1)/plan.BlockSize)]
}

// begin lets a sequence that has no pages continue the longest prefix that is
// kept. The last token is always computed: its logits are wanted.
func (e *Engine) begin(s *sequence) {
	if s.req.Logits || e.o.NoPrefixCache {
		return // every position's logits are wanted
	}
	s.extendKeys(s.total() - 1)
	n := e.prefixes.Longest(s.usableKeys())
	s.continued = kv.Key{}
	if n == nil {
		return
	}
	s.kv.Continue(n)
	s.continued = s.keys[n.Tokens()/plan.BlockSize-1]
	s.unknown = true
	if s.preempted == 0 {
		s.cached = n.Tokens()
	}
}

// findStops lists where, besides the places of nextStop, a prefix of the prompt is
// worth keeping: behind each message, which a token of Request.Stop ends, at the
// last block boundary. Of messages closer than grid tokens only the last counts.
// The one before the question is among them: the next question continues there.
func (s *sequence) findStops(grid int) {
	for i, t := range s.req.Prompt {
		if !slices.Contains(s.req.Stop, t) {
			continue
		}
		at := (i + 1) / plan.BlockSize * plan.BlockSize
		n := len(s.stops)
		before := 0
		if n > 1 {
			before = s.stops[n-2]
		}
		switch {
		case at == 0 || n > 0 && at == s.stops[n-1]:
		case n > 0 && at-before <= grid:
			s.stops[n-1] = at
		default:
			s.stops = append(s.stops, at)
		}
	}
}

// nextStop returns the end of the longest chunk that s may compute next: a multiple
// of the longest chunk, or the place behind a message. Where no prefixes are kept, that
// is nowhere.
func (e *Engine) nextStop(s *sequence) int {
	if e.o.NoPrefixCache {
		return s.limit
	}
	grid := e.o.chunkTokens()
	next := (s.kv.Len()/grid + 1) * grid
	i, _ := slices.BinarySearch(s.stops, s.kv.Len()+1)
	if i < len(s.stops) {
		next = min(next, s.stops[i])
	}
	return next
}

// isStop reports whether something is done with the first n tokens of s as soon as they
// are computed: they end where nextStop said, and are kept, or with the prompt.
func (e *Engine) isStop(s *sequence, n int) bool {
	if n == s.total() || e.o.NoPrefixCache {
		return n == s.total()
	}
	_, found := slices.BinarySearch(s.stops, n)
	return found || n%e.o.chunkTokens() == 0
}

// outlasts reports whether the prefix that s has computed, kept at a stop, is one that
// another question about the same document will continue: it ends with a message, or
// it is the last before the prompt's end.
func (e *Engine) outlasts(s *sequence) bool {
	n := s.kv.Len()
	_, message := slices.BinarySearch(s.stops, n)
	return message || n < s.total() && e.nextStop(s) >= s.total()
}

// keep puts what a sequence has computed so far, to the last block boundary, into
// the index, and returns its key; false when there is nothing to keep. It is called
// between steps.
func (e *Engine) keep(s *sequence) (kv.Key, bool) {
	blocks := s.kv.Len() / plan.BlockSize
	if blocks == 0 || e.o.NoPrefixCache {
		return kv.Key{}, false
	}
	s.extendKeys(blocks * plan.BlockSize)
	key := s.keys[blocks-1]
	if !e.prefixes.Has(key) {
		e.prefixes.Add(key, s.kv.Snapshot())
	}
	return key, true
}

// awaits reports whether a running prefill is about to compute a longer prefix of
// s than is kept: the second of two equal prompts had better wait for the first.
func (e *Engine) awaits(s *sequence) bool {
	if s.req.Logits || e.o.NoPrefixCache {
		return false
	}
	usable := s.usableKeys()
	have := len(usable)
	for have > 0 && !e.prefixes.Has(usable[have-1]) {
		have--
	}
	for _, r := range e.running {
		if r.decoding() || r.req.Logits {
			continue
		}
		common := 0
		for common < min(len(usable), len(r.keys)) && usable[common] == r.keys[common] {
			common++
		}
		if common > have && r.kv.Len()/plan.BlockSize < common {
			// There its prefix is kept.
			if i, found := slices.BinarySearch(r.stops, common*plan.BlockSize); !found {
				r.stops = slices.Insert(r.stops, i, common*plan.BlockSize)
			}
			return true
		}
	}
	return false
}
