package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// endTokens are the spellings of special tokens at which models stop: the end of
// a turn, of a message or of a text. A model's settings name one or two of them
// and often not the one that its chat template ends turns with.
var endTokens = []string{
	"</s>", "<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>",
	"<|end|>", "<|eot|>", "<end_of_turn>", "<|end_of_turn|>", "<|endofturn|>", "<|endoftext_R|>",
	"<｜end▁of▁sentence｜>", "<EOT>", "<eos>",
}

// builder gathers what the two file formats have in common. Its error messages
// name fields through the names that the format gives them.
type builder struct {
	t     *Tokenizer
	added []addedSpelling
	stops []int32 // end-of-generation tokens that the file lists
}

func newBuilder(tokens int) *builder {
	tokens = min(max(tokens, 0), maxVocab)
	return &builder{t: &Tokenizer{
		vocab: vocabulary{
			names: make([]string, 0, tokens),
			kinds: make([]kind, 0, tokens),
			ids:   make(map[string]int32, tokens),
		},
		bos: noToken, eos: noToken,
	}}
}

// finish completes the tokenizer once vocabulary, added tokens and model are
// set.
func (b *builder) finish(normalizeAdded func(string) string) *Tokenizer {
	t := b.t
	text, spell := appendByteLevel, appendSpelling
	if _, ok := t.model.(*sentencePiece); ok {
		text, spell = appendSentencePiece, appendMeta
	}
	t.vocab.seal(text, spell)
	t.raw, t.normalized = collect(b.added, normalizeAdded)
	if t.eos != noToken {
		b.stops = append(b.stops, t.eos)
	}
	for _, name := range endTokens {
		if id, ok := t.vocab.ids[name]; ok && t.vocab.kinds[id] == special {
			b.stops = append(b.stops, id)
		}
	}
	slices.Sort(b.stops)
	t.eog = slices.Compact(b.stops)
	return t
}

// stop adds an end-of-generation token.
func (b *builder) stop(field string, id int64) error {
	if id < 0 || id >= maxVocab || !b.t.vocab.has(int32(id)) {
		return fmt.Errorf("%s: no token has id %d", field, id)
	}
	b.stops = append(b.stops, int32(id))
	return nil
}

// byteSymbols fills the table of the tokens of single bytes.
func (b *builder) byteSymbols(into *[256]int32) {
	for i, r := range byteRune {
		into[i] = noToken
		if id, ok := b.t.vocab.ids[string(r)]; ok {
			into[i] = id
		}
	}
}

// whole returns the tokens that a piece may equal, by their bytes.
func (b *builder) whole() map[string]int32 {
	v := &b.t.vocab
	out := make(map[string]int32, len(v.names))
	for id, name := range v.names {
		if v.kinds[id] == normal && isByteLevel(name) {
			out[string(appendByteLevel(nil, name))] = int32(id)
		}
	}
	return out
}

// sentencePieceModel returns an encoder with the vocabulary's runes and bytes
// but without merges. mergeable says which tokens text may become.
func (b *builder) sentencePieceModel(mergeable func(id int) bool) (*sentencePiece, error) {
	v := &b.t.vocab
	sp := &sentencePiece{
		symbols: map[rune]int32{},
		joined:  runePairs{other: map[uint64]struct{}{}},
		cache:   newPieceCache(),
	}
	for i := range sp.bytes {
		sp.bytes[i] = noToken
	}
	for id, name := range v.names {
		if b, ok := byteToken(name); ok {
			sp.bytes[b] = int32(id)
			continue
		}
		if !mergeable(id) {
			continue
		}
		if r, size := utf8.DecodeRuneInString(name); size == len(name) && size > 0 && utf8.ValidString(name) {
			sp.symbols[r] = int32(id)
		}
	}
	if i := slices.Index(sp.bytes[:], noToken); i >= 0 {
		return nil, fmt.Errorf("%w: byte fallback needs a token for every byte, and there is no <0x%02X>", ErrUnsupported, i)
	}
	return sp, nil
}

// parseMerges fills the rule table from pairs of spellings; the first has rank
// 0. merged is told the spelling of what each rule makes.
func (b *builder) parseMerges(field string, pairs []mergePair, merged func(name string)) (merges, error) {
	if len(pairs) > maxMerges {
		return merges{}, fmt.Errorf("%s: %d rules, more than %d", field, len(pairs), maxMerges)
	}
	m := newMerges(len(pairs))
	ids := b.t.vocab.ids
	var buf []byte
	for rank, p := range pairs {
		left, okLeft := ids[p.left]
		right, okRight := ids[p.right]
		buf = append(append(buf[:0], p.left...), p.right...)
		id, okMerged := ids[string(buf)]
		if !okLeft || !okRight || !okMerged {
			return merges{}, fmt.Errorf("%s[%d]: %.40q + %.40q: not all of them and what they make are in the vocabulary",
				field, rank, p.left, p.right)
		}
		// Text must never become a special token, whatever the rules say: see
		// EncodeOptions.ParseSpecial.
		if b.t.vocab.kinds[id] != special {
			m.set(left, right, uint32(rank), id)
			merged(b.t.vocab.names[id])
		}
	}
	return m, nil
}

// mergePair is a merge rule as files spell it.
type mergePair struct{ left, right string }

var errMergeRule = errors.New("a rule is two tokens")

// splitMerge parses "left right".
func splitMerge(s string) (mergePair, error) {
	for i := range len(s) {
		if s[i] != ' ' {
			continue
		}
		p := mergePair{s[:i], s[i+1:]}
		for j := range len(p.right) {
			if p.right[j] == ' ' {
				return mergePair{}, errMergeRule
			}
		}
		return p, nil
	}
	return mergePair{}, errMergeRule
}

// appendSpelling appends the bytes of an added token: its spelling. (The
// reference reads it as byte-level text when it can, which would garble a token
// such as <é>.)
func appendSpelling(dst []byte, name string) []byte { return append(dst, name...) }

// appendSentencePiece appends what a SentencePiece token stands for.
func appendSentencePiece(dst []byte, name string) []byte {
	if b, ok := byteToken(name); ok {
		return append(dst, b)
	}
	return appendMeta(dst, name)
}

// appendMeta appends name with spaces for meta.
func appendMeta(dst []byte, name string) []byte {
	for i := 0; i < len(name); {
		if len(name)-i >= len(meta) && name[i:i+len(meta)] == meta {
			dst = append(dst, ' ')
			i += len(meta)
			continue
		}
		dst = append(dst, name[i])
		i++
	}
	return dst
}
