package tokenizer_test

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// tiny is a byte-level tokenizer of the simplest kind.
const tiny = `{
	"added_tokens": [{"id": 9, "content": "<end>", "special": true}],
	"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
	"decoder": {"type": "ByteLevel"},
	"model": {
		"type": "BPE",
		"vocab": {"H": 0, "i": 1, "Ġ": 2, "Hi": 3, "ð": 4, "Ł": 5, "ĺ": 6, "Ģ": 7, "ðŁ": 8},
		"merges": ["H i", "ð Ł"]
	}
}`

// Text is decoded as its tokens arrive; a character that is spread over several
// tokens comes with the last of them.
func ExampleTokenizer_NewDecoder() {
	tok, err := tokenizer.FromJSON([]byte(tiny), nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ids := tok.Encode("Hi 😀<end>", tokenizer.EncodeOptions{ParseSpecial: true})
	d := tok.NewDecoder(true)
	for _, id := range ids {
		fmt.Printf("%d %q %q\n", id, tok.Token(id), d.Push(id))
	}
	fmt.Printf("%q\n", d.Flush())
	// Output:
	// 3 "Hi" "Hi"
	// 2 "Ġ" " "
	// 8 "ðŁ" ""
	// 6 "ĺ" ""
	// 7 "Ģ" "😀"
	// 9 "<end>" ""
	// ""
}
