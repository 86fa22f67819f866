package measure

import "github.com/moaserve/moaserve/runtime/plan"

// decodedStream is the part of a stream that was measured: the tokens numbered from
// (included) to to (excluded) of those that followed a prompt of that length.
type decodedStream struct {
	layout   *plan.Layout
	prompt   int
	from, to int
}

// kvPages counts the KV pages that the steps which made those tokens have read: for
// each, the pages that are visible from the last token there was.
func (s decodedStream) kvPages() int64 {
	total := int64(0)
	pages, block := 0, -1
	for i := s.from; i < s.to; i++ {
		tokens := s.prompt + i
		if q := (tokens - 1) / plan.BlockSize; q != block {
			pages, block = s.layout.Pages(tokens), q
		}
		total += int64(pages)
	}
	return total
}
