package weights

import (
	"fmt"
	"math"
)

// blockLayout is the storage of one block of a type: how many elements share
// their scales, and how many bytes they take together.
type blockLayout struct {
	name  string
	elems int
	bytes int
}

// legacyBlock and superBlock are ggml's two quantisation granularities.
const (
	legacyBlock = 32
	superBlock  = 256
)

var layouts = [...]blockLayout{
	F32:  {"F32", 1, 4},
	F16:  {"F16", 1, 2},
	BF16: {"BF16", 1, 2},
	Q4_0: {"Q4_0", legacyBlock, 2 + 16},               // d, 32 x 4 bits
	Q4_1: {"Q4_1", legacyBlock, 2 + 2 + 16},           // d, m, 32 x 4 bits
	Q5_0: {"Q5_0", legacyBlock, 2 + 4 + 16},           // d, 32 x 1 bit, 32 x 4 bits
	Q5_1: {"Q5_1", legacyBlock, 2 + 2 + 4 + 16},       // d, m, 32 x 1 bit, 32 x 4 bits
	Q8_0: {"Q8_0", legacyBlock, 2 + 32},               // d, 32 x 8 bits
	Q4_K: {"Q4_K", superBlock, 2 + 2 + 12 + 128},      // d, dmin, 8 x (6+6) bits, 256 x 4 bits
	Q5_K: {"Q5_K", superBlock, 2 + 2 + 12 + 32 + 128}, // as Q4_K, and 256 x 1 bit
	Q6_K: {"Q6_K", superBlock, 128 + 64 + 16 + 2},     // 256 x 4 bits, 256 x 2 bits, 16 scales, d
}

// Types lists every storage type that is read.
func Types() []Type {
	return []Type{F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K}
}

func (t Type) layout() blockLayout {
	if int(t) < len(layouts) {
		return layouts[t]
	}
	return blockLayout{}
}

// String returns ggml's name of the type.
func (t Type) String() string {
	if l := t.layout(); l.elems > 0 {
		return l.name
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// BlockElems returns the number of consecutive elements that share a scale; 1
// for the floating-point types and 0 for values that are no Type.
func (t Type) BlockElems() int { return t.layout().elems }

// RowBytes returns the size of n consecutive elements, n being a multiple of
// BlockElems. It is 0 for values that are no Type.
func (t Type) RowBytes(n int) int {
	l := t.layout()
	if l.elems == 0 {
		return 0
	}
	return n / l.elems * l.bytes
}

// Float reports whether elements are stored one by one as floating-point
// numbers.
func (t Type) Float() bool { return t.BlockElems() == 1 }

// tensorBytes returns the size of a tensor, or an error that says what is wrong
// with its shape: a dimension out of range, a row that does not consist of whole
// blocks, or a size that no int holds.
func (t Type) tensorBytes(shape []int) (int, error) {
	elems := 1
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("dimension %d of shape %v is negative", d, shape)
		}
		if d > 0 && elems > math.MaxInt/8/d {
			return 0, fmt.Errorf("shape %v is too large", shape)
		}
		elems *= d
	}
	l := t.layout()
	row := 1
	if len(shape) > 0 {
		row = shape[len(shape)-1]
	}
	if row%l.elems != 0 {
		return 0, fmt.Errorf("rows of %d elements do not divide into %s blocks of %d", row, l.name, l.elems)
	}
	return elems / l.elems * l.bytes, nil
}
