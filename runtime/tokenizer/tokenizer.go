// Package tokenizer turns text into the token ids of a model and back. It reads
// the two kinds of tokenizer that the Llama family uses, byte-level BPE (GPT-2,
// SmolLM, Llama-3, Qwen2 and Qwen3) and SentencePiece BPE with byte fallback
// (Llama-2, Vicuna, Mistral), from GGUF metadata or from a tokenizer.json.
//
// The reference is the Rust package `tokenizers`: for every text the ids are
// equal to its ids. A tokenizer that asks for anything that is not implemented
// is refused when it is loaded (ErrUnsupported), never approximated.
package tokenizer

import (
	"errors"
	"slices"
)

// ErrUnsupported refuses a well-formed tokenizer that needs something that is
// not implemented. The error that wraps it names what.
var ErrUnsupported = errors.New("unsupported tokenizer")

// Tokenizer encodes and decodes text. It is immutable after loading, apart from
// a lock-free cache of bounded size, and safe for concurrent use.
type Tokenizer struct {
	vocab vocabulary
	// prefix and suffix frame a text that is encoded with AddSpecial.
	prefix, suffix []int32
	bos, eos       int32 // noToken when the model has none
	eog            []int32

	raw        *matcher            // added tokens looked for in the text as it comes
	normalized *matcher            // added tokens looked for after normalisation
	normalize  func(string) string // nil when text is taken as it is
	model      segmentEncoder
	stripSpace bool // decoding removes one leading space
}

// segmentEncoder encodes text that holds no added tokens. first says that the
// segment begins where the text begins. It appends to dst.
type segmentEncoder interface {
	encode(dst []int32, segment string, first bool) []int32
}

var (
	_ segmentEncoder = (*byteLevel)(nil)
	_ segmentEncoder = (*sentencePiece)(nil)
)

const noToken = -1

// EncodeOptions says how a text is read.
type EncodeOptions struct {
	// AddSpecial puts the tokens around the text that the model expects, such as
	// the beginning-of-sequence token.
	AddSpecial bool
	// ParseSpecial recognises special tokens (<|im_end|>, </s>) that are written
	// out in the text. Leave it unset for text from outside: without it such
	// text is split like any other and cannot forge a control token. Added
	// tokens that are not special are recognised either way.
	ParseSpecial bool
}

// Encode returns the ids of text. Bytes that are not UTF-8 are encoded byte by
// byte. The time is nearly linear in the length of the text, whatever it is.
func (t *Tokenizer) Encode(text string, o EncodeOptions) []int32 {
	// Prose has four to five bytes a token.
	ids := make([]int32, 0, len(t.prefix)+len(text)/4+len(t.suffix)+8)
	if o.AddSpecial {
		ids = append(ids, t.prefix...)
	}
	for a := range t.raw.segments(text, o.ParseSpecial) {
		if a.token != nil {
			ids = append(ids, a.token.id)
			continue
		}
		segment := text[a.start:a.end]
		if t.normalize != nil {
			segment = t.normalize(segment)
		}
		for b := range t.normalized.segments(segment, o.ParseSpecial) {
			if b.token != nil {
				ids = append(ids, b.token.id)
				continue
			}
			ids = t.model.encode(ids, segment[b.start:b.end], a.start == 0 && b.start == 0)
		}
	}
	if o.AddSpecial {
		ids = append(ids, t.suffix...)
	}
	return ids
}

// VocabSize returns the number of ids: one more than the largest. Some ids below
// it may have no token. The model's embedding may have more rows.
func (t *Tokenizer) VocabSize() int { return len(t.vocab.kinds) }

// BOS returns the token that begins a sequence; false when the model has none.
func (t *Tokenizer) BOS() (int32, bool) { return t.bos, t.bos != noToken }

// EOS returns the token that ends a sequence; false when the model has none.
func (t *Tokenizer) EOS() (int32, bool) { return t.eos, t.eos != noToken }

// EndOfGeneration returns, in ascending order, every token at which generation
// stops: EOS, the tokens that the model's generation settings list, and the
// special tokens of the vocabulary that end a turn or a text by their name. The
// slice is the caller's.
func (t *Tokenizer) EndOfGeneration() []int32 { return slices.Clone(t.eog) }

// Token returns the vocabulary's own spelling of a token, such as "Ġhello" or
// "▁hello"; empty for an unknown id.
func (t *Tokenizer) Token(id int32) string {
	if !t.vocab.has(id) {
		return ""
	}
	return t.vocab.names[id]
}

// ID returns the token with that spelling in the vocabulary.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.vocab.ids[token]
	return id, ok
}

// IsSpecial says whether a token is special: one that stands for structure, not
// for text. Decoding with skipSpecial leaves it out.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.vocab.has(id) && t.vocab.kinds[id] == special }

// Bytes returns the bytes that a token stands for, which may be a part of a
// UTF-8 sequence; nil for an unknown id. The slice is shared: do not write to
// it.
func (t *Tokenizer) Bytes(id int32) []byte { return t.vocab.bytes(id) }
