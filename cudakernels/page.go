package cudakernels

// PageType is the element type of KV pages.
type PageType uint8

// The types of KV pages. An e4m3 page is a little over half as large: 8-bit floats
// with one scale for the keys and one for the values. The kernels that touch pages
// come in both types; those for e4m3 have an argument struct of their own.
const (
	PagesBF16 PageType = iota
	PagesFP8
)

// pageScales is what follows keys and values in an e4m3 page: two float32, and
// padding to whole cache lines.
const pageScales = 128

// tileBytes is the size of the keys (or the values) of a page.
func (t PageType) tileBytes(headDim int) int {
	n := BlockTokens * StoredHeadDim(headDim)
	if t == PagesBF16 {
		n *= 2
	}
	return n
}

// PageBytes returns the size of a KV page.
func PageBytes(t PageType, headDim int) int {
	n := 2 * t.tileBytes(headDim)
	if t == PagesFP8 {
		n += pageScales
	}
	return n
}
