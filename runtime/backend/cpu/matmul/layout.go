package matmul

import "github.com/moaserve/moaserve/runtime/weights"

const (
	// tileRows is the number of output rows that are interleaved: one 512-bit
	// register of 32-bit lanes, or two of 256 bits.
	tileRows = 16
	// blockCols is the number of columns that share a scale, in the weights of
	// the block formats and in the activations.
	blockCols = 32
	// superBlocks is the number of blocks in a super-block of the K formats.
	superBlocks = 8
)

// kind is a packed layout. A matrix is cut into tiles of tileRows output rows.
// A tile holds its blocks of blockCols columns one after the other; the K
// formats put a header before every superBlocks blocks. A block of a quantised
// kind is, in this order:
//
//   - the low four bits of the codes, 4 x 64 bytes: byte 4*r+j of chunk c has
//     the code of row r and column 8*c+j in its low nibble, and that of column
//     8*c+4+j in its high nibble;
//   - the fifth bits, 64 bytes: bit q of byte 4*r+j belongs to column 4*q+j; or
//     the fifth and sixth bits, 2 x 64 bytes: bits 2*i and 2*i+1 of byte 4*r+j
//     of plane p belong to column 16*p+4*i+j;
//   - the scales: one f16 a row, then, where the format has one, the minimum as
//     f16; or a byte a row each (K formats, factors of the header's f16 values).
//
// So four columns of one row are one 32-bit lane, which is what the byte dot
// products of AVX2 and AVX-512 want. Eight-bit codes are 8 x 64 bytes, signed:
// byte 4*r+j of chunk q is column 4*q+j. A block of a float kind holds, column
// after column, one element a row.
type kind struct {
	typ weights.Type
	// bits of a code; 0 for the float kinds.
	bits int
	// bias is subtracted from every unsigned code (the symmetric formats).
	bias int
	// mins tells that the format has a minimum.
	mins bool
	// super tells that the format has super-blocks.
	super bool
	// srcBlock and srcCols are the size in bytes and in columns of a block in
	// the file.
	srcBlock, srcCols int
	// header and block are sizes in bytes; scales is the offset in the block.
	header, block, scales int
}

// kinds is indexed by weights.Type.
var kinds = [...]kind{
	weights.F32:  {typ: weights.F32, srcBlock: 4, srcCols: 1, block: 4 * tileRows * blockCols},
	weights.F16:  {typ: weights.F16, srcBlock: 2, srcCols: 1, block: 2 * tileRows * blockCols},
	weights.BF16: {typ: weights.BF16, srcBlock: 2, srcCols: 1, block: 2 * tileRows * blockCols},
	weights.Q4_0: {typ: weights.Q4_0, bits: 4, bias: 8, srcBlock: 18, srcCols: 32, scales: 256, block: 288},
	weights.Q4_1: {typ: weights.Q4_1, bits: 4, mins: true, srcBlock: 20, srcCols: 32, scales: 256, block: 320},
	weights.Q5_0: {typ: weights.Q5_0, bits: 5, bias: 16, srcBlock: 22, srcCols: 32, scales: 320, block: 352},
	weights.Q5_1: {typ: weights.Q5_1, bits: 5, mins: true, srcBlock: 24, srcCols: 32, scales: 320, block: 384},
	weights.Q8_0: {typ: weights.Q8_0, bits: 8, srcBlock: 34, srcCols: 32, scales: 512, block: 544},
	weights.Q4_K: {typ: weights.Q4_K, bits: 4, mins: true, super: true, srcBlock: 144, srcCols: 256, header: 64, scales: 256, block: 288},
	weights.Q5_K: {typ: weights.Q5_K, bits: 5, mins: true, super: true, srcBlock: 176, srcCols: 256, header: 64, scales: 320, block: 352},
	weights.Q6_K: {typ: weights.Q6_K, bits: 6, bias: 32, super: true, srcBlock: 210, srcCols: 256, header: 32, scales: 384, block: 416},
}

// tileBytes is the size of a packed tile of cols columns.
func (k *kind) tileBytes(cols int) int {
	n := cols / blockCols
	return n*k.block + n/superBlocks*k.header
}

// quantised tells whether the kind multiplies the activations' codes; the float
// kinds multiply their float32 values.
func (k *kind) quantised() bool { return k.bits != 0 }

// unpacked tells whether the codes must be taken apart before they can be
// multiplied. Where a kernel does that once for many rows, it takes many.
func (k *kind) unpacked() bool { return k.quantised() && k.bits < 8 }
