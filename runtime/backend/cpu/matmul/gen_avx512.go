//go:build ignore

package main

func (g *gen) avx512() {
	g.constant("nibble512", 4, 0x0f0f0f0f)
	g.constant("plane5512", 4, 0x10101010)
	g.constant("plane6512", 4, 0x30303030)
	g.constant("sign512", 4, 0x80808080)
	g.constant("minus8512", 4, 0xc1000000)
	g.constant("minus16512", 4, 0xc1800000)
	// Pairs of 16 bits: what a sum of codes 0-15 and one of codes 16-31 are
	// multiplied by to take off the bias of the weights.
	g.constant("bias8", 4, 0xff80ff80)     // -128, -128
	g.constant("bias6low", 4, 0x0000ffe0)  // -32, 0
	g.constant("bias6high", 4, 0xffe00000) // 0, -32
	for _, k := range kinds {
		g.avx512Kernel(k)
	}
	for _, f := range floats {
		g.avx512Float(f)
	}
}

// prefetchRows is the same distance for several rows, which pass through the
// weights more slowly and more than once: about a tile of 576 four-bit columns.
// All general registers are in use, so it is not the tile's own size as in AVX2.
const prefetchRows = 6144

// avx512Kernel writes the kernel of a quantised kind, for one to eight rows.
// Integer sums are in Z0-Z7, results in Z8-Z15, Q6_K's second sums in Z16-Z23.
// Z24 and Z25 hold unpacked codes, Z26, Z27 and Z31 are temporary, Z28-Z30
// constants. DI is dst, DX the block, SI the header, CX the blocks left.
func (g *gen) avx512Kernel(k kind) {
	g.function(k.name+"AVX512", "xblock", 0)
	g.p("MOVQ dst+0(FP), DI")
	g.p("MOVQ w+16(FP), DX")
	if k.bits == 8 {
		g.p("VPBROADCASTD ·sign512<>(SB), Z28")
		g.p("VPBROADCASTD ·bias8<>(SB), Z30")
	} else {
		g.p("VPBROADCASTD ·nibble512<>(SB), Z28")
	}
	switch {
	case k.bits == 5:
		g.p("VPBROADCASTD ·plane5512<>(SB), Z29")
	case k.bits == 6:
		g.p("VPBROADCASTD ·plane6512<>(SB), Z29")
	}
	if k.bias != 0 && k.bits < 6 {
		g.p("VPBROADCASTD ·minus%d512<>(SB), Z30", k.bias)
	}
	g.dispatch(8)
	for rows := 8; rows >= 1; rows /= 2 {
		g.avx512Begin(rows)
		for r := range rows {
			g.p("VPXORD Z%d, Z%d, Z%d", 8+r, 8+r, 8+r)
		}
		at := string(rune('0' + rows))
		g.superBegin(k, "DX", "SI", at)
		ahead := prefetch
		if rows > 1 {
			ahead = prefetchRows
		}
		for off := 0; off < k.block; off += 64 {
			g.p("PREFETCHT0 %d(DX)", ahead+off)
		}
		if k.bits == 6 {
			g.avx512Dots6(k, rows)
		} else {
			g.avx512Dots(k, rows)
		}
		g.avx512Affine(k, rows)
		for r := range rows {
			g.p("ADDQ $%d, %s", xBytes, row512(r))
		}
		g.superEnd(k, "DX", at)
		g.avx512End(rows, 8)
	}
}

// avx512Codes leaves the unsigned codes of columns 8*c to 8*c+3 in Z24 and those
// of the next four in Z25.
func (g *gen) avx512Codes(k kind, c int) {
	if k.bits == 8 {
		g.p("VPXORD %d(DX), Z28, Z24", 128*c)
		g.p("VPXORD %d(DX), Z28, Z25", 128*c+64)
		return
	}
	g.p("VMOVDQU64 %d(DX), Z24", 64*c)
	g.p("VPSRLW $4, Z24, Z25")
	g.p("VPANDD Z28, Z24, Z24")
	g.p("VPANDD Z28, Z25, Z25")
	switch {
	case k.bits == 5 && c == 0:
		g.p("VMOVDQU64 256(DX), Z26")
	case k.bits == 6 && c%2 == 0:
		g.p("VMOVDQU64 %d(DX), Z26", 256+64*(c/2))
	}
	for i := range 2 {
		q := 2*c + i
		var left int
		switch k.bits {
		case 5:
			left = 4 - q
		case 6:
			left = 4 - q%4*2
		default:
			return
		}
		from := "Z27"
		switch {
		case left > 0:
			g.p("VPSLLW $%d, Z26, Z27", left)
		case left < 0:
			g.p("VPSRLW $%d, Z26, Z27", -left)
		default:
			from = "Z26"
		}
		g.p("VPANDD Z29, %s, Z27", from)
		g.p("VPORD Z27, Z%d, Z%d", 24+i, 24+i)
	}
}

// avx512Dots computes the dot products of all 32 columns: VPDPBUSD adds four
// products of an unsigned and a signed byte to 32 bits.
func (g *gen) avx512Dots(k kind, rows int) {
	for r := range rows {
		if k.bits == 8 {
			// The codes are 128 too high.
			g.p("VPBROADCASTD %d(%s), Z%d", xHalves, row512(r), r)
			g.p("VPMADDWD Z30, Z%d, Z%d", r, r)
		} else {
			g.p("VPXORD Z%d, Z%d, Z%d", r, r, r)
		}
	}
	for c := range 4 {
		g.avx512Codes(k, c)
		for i := range 2 {
			for r := range rows {
				g.p("VPDPBUSD.BCST %d(%s), Z%d, Z%d", 8*c+4*i, row512(r), 24+i, r)
			}
		}
	}
}

// avx512Dots6 computes Q6_K's dot products, as float32 in Z0-Z7: both halves'
// integers times their integer scales. All of these numbers are integers below
// 2^24, so nothing is rounded.
func (g *gen) avx512Dots6(k kind, rows int) {
	for half, bias := range []string{"bias6low", "bias6high"} {
		sum := 16 * half
		g.p("VPBROADCASTD ·%s<>(SB), Z31", bias)
		for r := range rows {
			g.p("VPBROADCASTD %d(%s), Z%d", xHalves, row512(r), sum+r)
			g.p("VPMADDWD Z31, Z%d, Z%d", sum+r, sum+r)
		}
		for c := 2 * half; c < 2*half+2; c++ {
			g.avx512Codes(k, c)
			for i := range 2 {
				for r := range rows {
					g.p("VPDPBUSD.BCST %d(%s), Z%d, Z%d", 8*c+4*i, row512(r), 24+i, sum+r)
				}
			}
		}
		g.p("VPMOVSXBD %d(DX), Z31", k.scales+16*half)
		g.p("VCVTDQ2PS Z31, Z31")
		for r := range rows {
			g.p("VCVTDQ2PS Z%d, Z%d", sum+r, sum+r)
			if half == 0 {
				g.p("VMULPS Z31, Z%d, Z%d", r, r)
			} else {
				g.p("VFMADD231PS Z31, Z%d, Z%d", sum+r, r)
			}
		}
	}
}

// avx512Affine adds (scale*dot + minimum*sum) * activation scale to the results.
// It uses Z16-Z23 for the terms, Z24 for the scales and Z25 for the minima.
func (g *gen) avx512Affine(k kind, rows int) {
	switch {
	case k.bits == 6:
		g.p("VCVTPH2PS (SI), Z24")
	case k.super:
		g.p("VPMOVZXBD %d(DX), Z24", k.scales)
		g.p("VCVTDQ2PS Z24, Z24")
		g.p("VCVTPH2PS (SI), Z26")
		g.p("VMULPS Z26, Z24, Z24")
		g.p("VPMOVZXBD %d(DX), Z25", k.scales+16)
		g.p("VCVTDQ2PS Z25, Z25")
		g.p("VCVTPH2PS 32(SI), Z26")
		g.p("VMULPS Z26, Z25, Z25")
	default:
		g.p("VCVTPH2PS %d(DX), Z24", k.scales)
		switch {
		case k.mins:
			g.p("VCVTPH2PS %d(DX), Z25", k.scales+32)
		case k.bias != 0:
			g.p("VMULPS Z30, Z24, Z25")
		}
	}
	if k.bits != 6 {
		for r := range rows {
			g.p("VCVTDQ2PS Z%d, Z%d", r, r)
		}
	}
	if !k.hasMinimum() {
		for r := range rows {
			g.p("VMULPS Z24, Z%d, Z%d", r, r)
			g.p("VFMADD231PS.BCST %d(%s), Z%d, Z%d", xScale, row512(r), r, 8+r)
		}
		return
	}
	fma := "VFMADD231PS"
	if k.super {
		fma = "VFMSUB231PS" // these minima are subtracted
	}
	for r := range rows {
		g.p("VMULPS.BCST %d(%s), Z25, Z%d", xSum, row512(r), 16+r)
		g.p("%s Z24, Z%d, Z%d", fma, r, 16+r)
		g.p("VFMADD231PS.BCST %d(%s), Z%d, Z%d", xScale, row512(r), 16+r, 8+r)
	}
}
