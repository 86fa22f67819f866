package tokenizer

import "unicode/utf8"

// replacement stands for bytes that are not UTF-8.
const replacement = "\ufffd"

// Decode returns the text of ids, without special tokens when skipSpecial is
// set. Unknown ids are skipped. Bytes that are not UTF-8 become U+FFFD, one for
// each maximal part of a sequence (The Unicode Standard, 3.9). SentencePiece
// tokenizers that put a space before a text take it away again.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	d := t.NewDecoder(skipSpecial)
	out := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		out = d.appendToken(out, id)
	}
	return string(d.appendRest(out))
}

// Decoder decodes tokens as they arrive. It is for one goroutine. What Push and
// Flush return, put together, is what Decode returns for all the ids.
type Decoder struct {
	t           *Tokenizer
	skipSpecial bool
	strip       bool // the next byte, if a space, is dropped
	// pending is the beginning of a UTF-8 sequence: up to three bytes.
	pending  [utf8.UTFMax]byte
	nPending int
}

// NewDecoder returns a decoder for a text from its beginning.
func (t *Tokenizer) NewDecoder(skipSpecial bool) *Decoder {
	return &Decoder{t: t, skipSpecial: skipSpecial, strip: t.stripSpace}
}

// NewContinuation returns a decoder for tokens that follow others, such as those
// generated after a prompt: a space they begin with belongs to the text.
func (t *Tokenizer) NewContinuation(skipSpecial bool) *Decoder {
	return &Decoder{t: t, skipSpecial: skipSpecial}
}

// Push adds a token and returns the text that is complete with it: whole UTF-8
// sequences only. It is empty when the token ends within a sequence.
func (d *Decoder) Push(id int32) string { return string(d.appendToken(nil, id)) }

// Flush ends the text. It returns U+FFFD when a sequence was left incomplete,
// and otherwise nothing.
func (d *Decoder) Flush() string { return string(d.appendRest(nil)) }

func (d *Decoder) appendToken(dst []byte, id int32) []byte {
	if d.skipSpecial && d.t.IsSpecial(id) {
		return dst
	}
	token := d.t.Bytes(id)
	if d.strip && len(token) > 0 {
		d.strip = false
		if token[0] == ' ' {
			token = token[1:]
		}
	}
	for d.nPending > 0 && len(token) > 0 {
		// One byte more: it completes the sequence, lengthens it or breaks it.
		d.pending[d.nPending] = token[0]
		p := d.pending[:d.nPending+1]
		switch {
		case !utf8.FullRune(p):
			d.nPending++
			token = token[1:]
		case utf8.Valid(p):
			dst = append(dst, p...)
			d.nPending = 0
			token = token[1:]
		default:
			dst = append(dst, replacement...)
			d.nPending = 0
		}
	}
	if utf8.Valid(token) {
		return append(dst, token...)
	}
	for len(token) > 0 {
		r, size := utf8.DecodeRune(token)
		if r != utf8.RuneError || size > 1 {
			dst = append(dst, token[:size]...)
			token = token[size:]
			continue
		}
		if !utf8.FullRune(token) {
			d.nPending = copy(d.pending[:], token)
			break
		}
		dst = append(dst, replacement...)
		token = token[maximalPart(token):]
	}
	return dst
}

func (d *Decoder) appendRest(dst []byte) []byte {
	if d.nPending > 0 {
		d.nPending = 0
		dst = append(dst, replacement...)
	}
	return dst
}

// maximalPart returns the length of the longest beginning of b that some UTF-8
// sequence has too; 1 when there is none. b does not begin with a whole
// sequence.
func maximalPart(b []byte) int {
	n := 1
	for n < len(b) && !utf8.FullRune(b[:n]) && !utf8.FullRune(b[:n+1]) {
		n++
	}
	return n
}
