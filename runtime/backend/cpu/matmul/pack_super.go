package matmul

// packSuper repacks one super-block of 256 weights. Layouts: ggml's block_q4_K,
// block_q5_K and block_q6_K.
func packSuper(k *kind, dst []byte, r int, src []byte) {
	if k.bits == 6 {
		packQ6K(k, dst, r, src)
		return
	}
	copy(dst[2*r:][:2], src)                // d
	copy(dst[2*tileRows+2*r:][:2], src[2:]) // dmin
	scales := src[4:16]
	nibbles := src[16:]
	var high []byte
	if k.bits == 5 {
		high, nibbles = src[16:48], src[48:]
	}
	for b := range superBlocks {
		blk := dst[k.header+b*k.block:]
		sc, m := scaleMinK(scales, b)
		blk[k.scales+r] = sc
		blk[k.scales+tileRows+r] = m
		// Blocks 2i and 2i+1 are the low and high nibbles of 32 bytes; bit b of
		// the 32 high bytes belongs to block b.
		var codes [blockCols]byte
		for j := range codes {
			codes[j] = nibbles[b/2*32+j] >> (b % 2 * 4) & 15
			if high != nil {
				codes[j] |= high[j] >> b & 1 << 4
			}
		}
		packCodes(k, blk, r, &codes)
	}
}

// scaleMinK unpacks the 6-bit scale and minimum of block b from the 12 bytes of
// Q4_K and Q5_K.
func scaleMinK(s []byte, b int) (scale, minimum byte) {
	if b < 4 {
		return s[b] & 63, s[b+4] & 63
	}
	return s[b+4]&15 | s[b-4]>>6<<4, s[b+4]>>4 | s[b]>>6<<4
}

func packQ6K(k *kind, dst []byte, r int, src []byte) {
	low, high, scales, d := src[:128], src[128:192], src[192:208], src[208:210]
	copy(dst[2*r:][:2], d)
	for b := range superBlocks {
		blk := dst[k.header+b*k.block:]
		blk[k.scales+r] = scales[2*b]
		blk[k.scales+tileRows+r] = scales[2*b+1]
		// Each half of 128 weights has 64 low and 32 high bytes. Its blocks 0
		// to 3 are: low nibbles of the first and of the second 32 bytes, then
		// their high nibbles; and bit pairs 0 to 3 of the high bytes.
		half, i := b/4, b%4
		var codes [blockCols]byte
		for j := range codes {
			codes[j] = low[half*64+i%2*32+j]>>(i/2*4)&15 | high[half*32+j]>>(2*i)&3<<4
		}
		packCodes(k, blk, r, &codes)
	}
}
