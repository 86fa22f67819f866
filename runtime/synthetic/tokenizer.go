package synthetic

import (
	"fmt"
	"strconv"

	"github.com/moaserve/moaserve/runtime/tokenizer"
	"github.com/moaserve/moaserve/runtime/weights"
)

// The ids of the tokens: the bytes have their own value.
const (
	bosID     = 256
	eosID     = 257
	firstWord = 258
)

// chatTemplate writes a conversation as plain text.
const chatTemplate = `{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}`

// newTokenizer returns a tokenizer of that many ids. Text becomes bytes. The ids that
// are neither bytes nor special, which random weights choose most of the time, become
// a space and their number in base 36: a token is always text, and the text is always
// harmless.
func newTokenizer(vocab int) (*tokenizer.Tokenizer, error) {
	if vocab < firstWord {
		return nil, fmt.Errorf("a vocabulary of %d tokens has no room for the %d of bytes and special ones", vocab, firstWord)
	}
	const normal, control = 1, 3 // as GGUF numbers the types
	names, types := make([]string, vocab), make([]int64, vocab)
	for i := range names {
		names[i], types[i] = byteLevelSpace+strconv.FormatInt(int64(i), 36), normal
	}
	for b, r := range byteAlphabet() {
		names[b] = string(r)
	}
	names[bosID], types[bosID] = "<|bos|>", control
	names[eosID], types[eosID] = "<|eos|>", control
	return tokenizer.FromGGUF(weights.Metadata{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
		"tokenizer.ggml.tokens": names, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": []string{},
		"tokenizer.ggml.bos_token_id": int64(bosID), "tokenizer.ggml.eos_token_id": int64(eosID), "tokenizer.ggml.add_bos_token": true,
	})
}

// byteLevelSpace is how byte-level vocabularies spell a space.
const byteLevelSpace = "\u0120"

// byteAlphabet returns how byte-level vocabularies spell each byte: as it is where it
// is printable in Latin-1, otherwise as the next of U+0100, U+0101, ...
func byteAlphabet() [256]rune {
	var alphabet [256]rune
	next := rune(0x100)
	for b := range alphabet {
		r := rune(b)
		if r < 0x21 || 0x7e < r && r < 0xa1 || r == 0xad {
			r = next
			next++
		}
		alphabet[b] = r
	}
	return alphabet
}
