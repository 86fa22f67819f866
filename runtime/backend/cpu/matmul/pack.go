package matmul

import (
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Pack copies a weight tensor [out, in] into the layout of the kernels for set,
// which must be available on this machine. A shape or type that no kernel
// multiplies is refused: errors.Is finds backend.ErrNotSupported. Quantised weights stay as they are,
// bit for bit; only their order changes. Out may be any number; in must be a
// multiple of 32. The result does not refer to t.Data; its memory, zeroed and
// aligned to a cache line, comes from alloc.
func Pack(t weights.Tensor, set isa.ISA, alloc func(n int) ([]byte, error)) (*Matrix, error) {
	if len(t.Shape) != 2 {
		return nil, fmt.Errorf("tensor %q: shape %v: %w: want [out, in]", t.Name, t.Shape, backend.ErrNotSupported)
	}
	if int(t.Type) >= len(kinds) || kinds[t.Type].typ == 0 {
		return nil, fmt.Errorf("tensor %q: type %d: %w", t.Name, t.Type, backend.ErrNotSupported)
	}
	if !set.Available() {
		return nil, fmt.Errorf("tensor %q: %w: this machine has no %v", t.Name, backend.ErrNotSupported, set)
	}
	k := &kinds[t.Type]
	rows, cols := t.Shape[0], t.Shape[1]
	if unit := max(blockCols, k.srcCols); rows <= 0 || cols <= 0 || cols%unit != 0 {
		return nil, fmt.Errorf("tensor %q: shape %v: %w: columns must be a multiple of %d", t.Name, t.Shape, backend.ErrNotSupported, unit)
	}
	// No format has less than half a byte a weight. This also keeps the products
	// below from overflowing.
	if cols > 2*len(t.Data) {
		return nil, fmt.Errorf("tensor %q: shape %v: only %d bytes of data", t.Name, t.Shape, len(t.Data))
	}
	rowBytes := cols / k.srcCols * k.srcBlock
	if len(t.Data)%rowBytes != 0 || len(t.Data)/rowBytes != rows {
		return nil, fmt.Errorf("tensor %q: %d bytes of data, want %d rows of %d", t.Name, len(t.Data), rows, rowBytes)
	}
	m := &Matrix{kind: k, isa: set, rows: rows, cols: cols, tileBytes: k.tileBytes(cols)}
	var err error
	if m.data, err = alloc(m.Tiles() * m.tileBytes); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	for n := range rows {
		tile := m.data[n/tileRows*m.tileBytes:][:m.tileBytes]
		packRow(k, tile, n%tileRows, t.Data[n*rowBytes:][:rowBytes])
	}
	return m, nil
}

// packRow writes one weight row to lane r of a zeroed tile.
func packRow(k *kind, tile []byte, r int, src []byte) {
	switch k.typ {
	case weights.F32:
		for c := range len(src) / 4 {
			copy(tile[(c*tileRows+r)*4:][:4], src[c*4:])
		}
	case weights.F16, weights.BF16:
		for c := range len(src) / 2 {
			copy(tile[(c*tileRows+r)*2:][:2], src[c*2:])
		}
	default:
		for len(src) > 0 {
			if k.super {
				packSuper(k, tile, r, src)
				tile = tile[k.header+superBlocks*k.block:]
			} else {
				packBlock(k, tile, r, src)
				tile = tile[k.block:]
			}
			src = src[k.srcBlock:]
		}
	}
}

// packBlock repacks one block of 32 weights. Layouts: ggml's block_q4_0,
// block_q4_1, block_q5_0, block_q5_1 and block_q8_0.
func packBlock(k *kind, blk []byte, r int, src []byte) {
	copy(blk[k.scales+2*r:][:2], src)
	src = src[2:]
	if k.mins {
		copy(blk[k.scales+2*tileRows+2*r:][:2], src)
		src = src[2:]
	}
	if k.bits == 8 {
		for q := range 8 {
			copy(blk[q*64+4*r:][:4], src[4*q:])
		}
		return
	}
	var codes [blockCols]byte
	high := src
	if k.bits == 5 {
		src = src[4:]
	}
	for j := range 16 {
		codes[j] = src[j] & 15
		codes[16+j] = src[j] >> 4
	}
	if k.bits == 5 {
		for j := range codes {
			codes[j] |= high[j/8] >> (j % 8) & 1 << 4
		}
	}
	packCodes(k, blk, r, &codes)
}

// packCodes spreads 32 codes over the nibbles and the planes of a block.
func packCodes(k *kind, blk []byte, r int, codes *[blockCols]byte) {
	for q := range 8 {
		for j := range 4 {
			c := codes[4*q+j]
			blk[q/2*64+4*r+j] |= c & 15 << (q % 2 * 4)
			switch k.bits {
			case 5:
				blk[256+4*r+j] |= c >> 4 << q
			case 6:
				blk[256+q/4*64+4*r+j] |= c >> 4 << (q % 4 * 2)
			}
		}
	}
}
