package spill

import (
	"fmt"
	"math"

	"github.com/moaserve/moaserve/runtime/kv"
)

// Image is a prefix outside of the device.
type Image struct {
	// Tokens is the length of the prefix, a multiple of the block size.
	Tokens int
	// Starts is the first block that each head holds beside the sink, as
	// [kv.Snapshot.Starts] returns it.
	Starts []int
	// Pages are the pages' bytes in the order of [kv.Snapshot.AppendPages].
	Pages []byte
}

// maxPages bounds the pages of an image: at 16 kB a page, 32 TB.
const maxPages = math.MaxInt32

// maxHeads bounds the heads (layers * KV heads) of an image, far beyond any
// model, so that a header stays small.
const maxHeads = 1 << 16

// pages returns the number of pages of a prefix of that form.
func pages(tokens int, starts []int) (int, error) {
	if len(starts) > maxHeads || tokens < 0 || int64(tokens) > maxPages/int64(max(1, len(starts))) {
		return 0, fmt.Errorf("a prefix of %d tokens and %d heads is too large", tokens, len(starts))
	}
	return kv.PagesOf(tokens, starts)
}

// check refuses an image that no prefix has.
func (m *Image) check(pageBytes int) error {
	n, err := pages(m.Tokens, m.Starts)
	if err != nil {
		return err
	}
	if int64(n)*int64(pageBytes) != int64(len(m.Pages)) {
		return fmt.Errorf("%d bytes for %d pages of %d", len(m.Pages), n, pageBytes)
	}
	return nil
}
