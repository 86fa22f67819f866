package attention

import (
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
)

// halfFormat is the format of pages in f16 and in bf16: the panels of keys, then
// those of values.
type halfFormat struct {
	headDim, cols int
	bf16          bool
	ops           vec.Ops
}

var _ format = (*halfFormat)(nil)

func (f *halfFormat) bytes() int { return 2 * pageTokens * (f.headDim + f.cols) }

func (f *halfFormat) element() int { return 2 }

func (f *halfFormat) panels(page []byte) (keys, values unsafe.Pointer, scales []uint16) {
	return unsafe.Pointer(&page[0]), unsafe.Pointer(&page[2*pageTokens*f.headDim]), nil
}

func (f *halfFormat) append(page []byte, slot int, key, value []float32) {
	memory, keys := halves(page), pageTokens*f.headDim
	var buffer [maxHeadDim]uint16
	half := buffer[:f.headDim]
	f.encode(half, key)
	putKey(memory[:keys], slot, half)
	f.encode(half, value)
	putValue(memory[keys:], slot, half)
}

func (f *halfFormat) widen(keys, values []float32, page []byte) {
	memory := halves(page)
	f.decode(keys, memory[:len(keys)])
	f.decode(values, memory[len(keys):])
}

func (f *halfFormat) encode(dst []uint16, src []float32) {
	if f.bf16 {
		f.ops.ToBF16(dst, src)
	} else {
		f.ops.ToF16(dst, src)
	}
}

func (f *halfFormat) decode(dst []float32, src []uint16) {
	if f.bf16 {
		f.ops.FromBF16(dst, src)
	} else {
		f.ops.FromF16(dst, src)
	}
}

// halves views memory, whose address is even, as 16-bit elements.
func halves(b []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}

// putKey writes a key, a column of a panel, into the panels of keys. Its length
// is a multiple of 8.
func putKey[T uint16 | int8](panels []T, slot int, key []T) {
	panel := panels[slot/panelWidth*panelWidth*len(key):][:panelWidth*len(key)]
	at := slot % panelWidth
	for len(key) >= 4 {
		// One bounds check for four of these scattered stores, which are most
		// of the work.
		column := panel[at : at+3*panelWidth+1]
		column[0], column[panelWidth] = key[0], key[1]
		column[2*panelWidth], column[3*panelWidth] = key[2], key[3]
		at += 4 * panelWidth
		key = key[4:]
	}
}

// putValue writes a value, a row of every panel, into the panels of values.
func putValue[T uint16 | int8](panels []T, slot int, value []T) {
	for at := slot * panelWidth; len(value) > 0; at += valuePanel {
		n := copy(panels[at:at+panelWidth], value)
		value = value[n:]
	}
}
