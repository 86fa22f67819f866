package attention

import "unsafe"

// All arithmetic of attention is two products of a few rows with a panel: 16
// columns, stored one step after the other, so that a step is one contiguous
// load. Scores are queries (steps: head dimensions) times panels of 16 keys;
// outputs are weights (steps: keys) times panels of 16 dimensions of the values.
//
// Whatever the number of rows, the element type and the kernel, an element of
// the result is the same chain of operations: c*scale, then one fused
// multiply-add a step, in order. That is why decode and prefill, which use
// different kernels, give the same bits, and why a product may be cut along k.

// panelWidth is the number of columns of a panel: two AVX2 vectors, with which
// six rows fill the twelve accumulators that hide the latency of an FMA.
const panelWidth = 16

// maxRows is the largest number of rows of one product.
const maxRows = 6

// product is one call of a kernel, for rows r, panels p, columns j:
//
//	c[r][16*p+j] = c[r][16*p+j]*scale[r] + sum over i < k of a[r][i]*b[p][i][j]
//
// When scale is nil the sum starts from zero and c is not read. Strides are in
// bytes. k may be 0 only when scale is not nil.
type product struct {
	a          *float32
	b          unsafe.Pointer // elements, as the kernel has it
	c          *float32
	scale      *float32
	lda, ldc   int
	panelBytes int // from a panel to the next
	k, panels  int
	// scales are those of 8-bit codes, in float32: b is a code times its scale.
	// Keys have 16 a panel, beside each other, and others 64 floats on after every
	// 32 steps; k must be a multiple of 32. Values have one a step, the same ones
	// for two panels and others 64 floats on for the next two; panels must be even.
	scales *float32
	// ahead is the memory that the next product reads. Kernels on narrower
	// elements prefetch from there as many bytes as they read: the arithmetic
	// between two loads is too long for the processor to see that far itself.
	ahead unsafe.Pointer
}

// products are the kernels of one element type, by the number of rows.
type products [maxRows + 1]func(*product)

// softmax is one call of the online softmax over the scores of one page:
// rows of 64 in base 2, of which the first n count.
//
//	m' = max(m, max of scores)   weights = 2^(scores-m')   corr = 2^(m-m')
//	l' = l*corr + sum of weights
//
// Weights replace the scores; those from n on are 0, whatever lay there.
type softmax struct {
	s          *float32
	m, l, corr *float32
	rows, n    int
}

// merge folds one set of partial results (mr, lr, src) into another (m, l, dst),
// by rows of cols floats one after the other.
type merge struct {
	dst, src     *float32
	m, l, mr, lr *float32
	rows, cols   int
}

// kernels are the inner loops of one instruction set.
type kernels struct {
	// f32 are the products with float32, to which pages can be widened; the others
	// read pages of their type as they are, if they are not nil.
	f32, f16, bf16   *products
	q8Keys, q8Values *products
	// widenKeys and widenValues multiply the codes of a panel of a q8_0 page with
	// their scales: a panel of keys has k steps, a multiple of 32, and 16 scales
	// every 32 steps, 64 elements apart; one of values has 64 steps with a scale
	// each.
	widenKeys   func(dst *float32, codes *int8, scales *uint16, k int)
	widenValues func(dst *float32, codes *int8, scales *uint16)
	softmax     func(*softmax)
	merge       func(*merge)
	// scale writes src*s + 0 to dst, n floats, a multiple of 8. The sum turns a
	// negative zero into a positive one.
	scale func(dst, src *float32, n int, s float32)
}
