package attention

import (
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
)

// q8Format is the format of pages in q8_0: 8-bit codes, with a scale in f16 for
// every 32 dimensions of a token's key or value. A page is
//
//	scales of keys    [HeadDim/32][64] f16
//	scales of values  [HeadDim/32][64] f16
//	codes of keys     4 panels of [HeadDim][16]
//	codes of values   HeadDim/16 panels of [64][16]
//
// so that the scales of a step of a panel, as of its codes, are 16 beside each
// other for keys, and one for values. A code times its scale is exact in float32:
// where the multiplication takes place does not show in the bits of a result.
type q8Format struct {
	headDim int
	ops     vec.Ops
	kernels *kernels
}

var _ format = (*q8Format)(nil)

// scaleCount is the number of scales of keys, and of values.
func (f *q8Format) scaleCount() int { return f.headDim / vec.Q8Block * pageTokens }

func (f *q8Format) bytes() int { return 2 * (2*f.scaleCount() + pageTokens*f.headDim) }

func (f *q8Format) element() int { return 1 }

func (f *q8Format) panels(page []byte) (keys, values unsafe.Pointer, scales []uint16) {
	n := f.scaleCount()
	return unsafe.Pointer(&page[4*n]), unsafe.Pointer(&page[4*n+pageTokens*f.headDim]), halves(page[:4*n])
}

// q8Page is the parts of a page.
type q8Page struct {
	keyScales, valueScales []uint16
	keys, values           []int8
}

func (f *q8Format) split(page []byte) q8Page {
	keys, values, scales := f.panels(page)
	n, size := f.scaleCount(), pageTokens*f.headDim
	return q8Page{scales[:n], scales[n:], unsafe.Slice((*int8)(keys), size), unsafe.Slice((*int8)(values), size)}
}

func (f *q8Format) append(page []byte, slot int, key, value []float32) {
	p := f.split(page)
	var buffer [maxHeadDim]int8
	var scaleBuffer [maxHeadDim / vec.Q8Block]uint16
	codes, scales := buffer[:f.headDim], scaleBuffer[:f.headDim/vec.Q8Block]
	f.ops.ToQ8(codes, scales, key)
	putKey(p.keys, slot, codes)
	putScales(p.keyScales, slot, scales)
	f.ops.ToQ8(codes, scales, value)
	putValue(p.values, slot, codes)
	putScales(p.valueScales, slot, scales)
}

func putScales(to []uint16, slot int, scales []uint16) {
	for i, s := range scales {
		to[i*pageTokens+slot] = s
	}
}

func (f *q8Format) widen(keys, values []float32, page []byte) {
	p := f.split(page)
	size := panelWidth * f.headDim
	for i := range pageTokens / panelWidth {
		f.kernels.widenKeys(&keys[i*size], &p.keys[i*size], &p.keyScales[i*panelWidth], f.headDim)
	}
	for i := range f.headDim / panelWidth {
		f.kernels.widenValues(&values[i*valuePanel], &p.values[i*valuePanel], &p.valueScales[i*panelWidth/vec.Q8Block*pageTokens])
	}
}
