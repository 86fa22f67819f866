package weights

// The 256-element types divide a block into sub-blocks (8 of 32 elements, or 16
// of 16) whose scales are themselves integers times the block's scale d.

// scaleMin unpacks the 6-bit scale and minimum of sub-block j of Q4_K and Q5_K.
// The first four pairs have bytes of their own; the last four are split: four
// bits in the last bytes, two in the top bits of the first ones.
func scaleMin(packed []byte, j int) (scale, minimum uint8) {
	if j < 4 {
		return packed[j] & 63, packed[j+4] & 63
	}
	return packed[j+4]&15 | packed[j-4]>>6<<4, packed[j+4]>>4 | packed[j]>>6<<4
}

func decodeQ4_K(dst []float32, src []byte) {
	d, dmin, packed, qs := f16At(src, 0), f16At(src, 2), src[4:16], src[16:]
	for j := range 8 {
		s, m := scaleMin(packed, j)
		ds, dm := d*float32(s), dmin*float32(m)
		sub, q, shift := dst[32*j:32*j+32], qs[32*(j/2):], 4*(j&1)
		for i := range sub {
			sub[i] = float32(ds*float32(q[i]>>shift&15)) - dm
		}
	}
}

func decodeQ5_K(dst []float32, src []byte) {
	d, dmin, packed, qh, qs := f16At(src, 0), f16At(src, 2), src[4:16], src[16:48], src[48:]
	for j := range 8 {
		s, m := scaleMin(packed, j)
		ds, dm := d*float32(s), dmin*float32(m)
		sub, q, shift := dst[32*j:32*j+32], qs[32*(j/2):], 4*(j&1)
		for i := range sub {
			sub[i] = float32(ds*float32(q[i]>>shift&15|qh[i]>>j&1<<4)) - dm
		}
	}
}

func decodeQ6_K(dst []float32, src []byte) {
	ql, qh, scales, d := src[:128], src[128:192], src[192:208], f16At(src, 208)
	for j := range 16 {
		// Each half of the block has 64 low bytes and 32 high bytes; its four
		// quarters of 32 elements take them in the order low nibbles of the
		// first 32 bytes, of the next 32, then the high nibbles likewise.
		half, quarter, first := j/8, j/2%4, j%2*16
		low := ql[64*half+32*(quarter&1)+first:]
		high := qh[32*half+first:]
		shift := 4 * (quarter >> 1)
		ds := d * float32(int8(scales[j]))
		sub := dst[16*j : 16*j+16]
		for i := range sub {
			sub[i] = ds * float32(int(low[i]>>shift&15|high[i]>>(2*quarter)&3<<4)-32)
		}
	}
}
