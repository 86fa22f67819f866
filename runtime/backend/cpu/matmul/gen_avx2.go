//go:build ignore

package main

import "fmt"

// prefetch is how far ahead of the loads, in bytes, the one-row kernels touch
// the weights. The processor's own prefetchers stop at each 4 KiB page.
const prefetch = 2048

func (g *gen) avx2() {
	g.constant("ones16", 32, 0x00010001)
	g.constant("nibble", 32, 0x0f0f0f0f)
	g.constant("plane5", 32, 0x10101010)
	g.constant("plane6", 32, 0x30303030)
	g.constant("minus8", 32, 0xc1000000)
	g.constant("minus16", 32, 0xc1800000)
	for _, k := range kinds {
		g.avx2Kernel(k)
	}
	for _, f := range floats {
		g.avx2Float(f)
	}
}

// avx2Kernel writes the kernel of a quantised kind. DI is dst, SI the stride in
// bytes, DX the tile, BX its size, CX the blocks left, AX the tiles left, R8-R11 point into the
// activation rows, R12 is the block and R13 the header.
func (g *gen) avx2Kernel(k kind) {
	frame := 0
	if k.bits == 6 {
		frame = 128 // its integer scales are kept there
	}
	g.function(k.name+"AVX2", "xblock", frame)
	g.p("MOVQ dst+0(FP), DI")
	g.p("MOVQ stride+8(FP), SI")
	g.p("MOVQ w+16(FP), DX")
	g.p("MOVQ tiles+56(FP), AX")
	g.dispatch(4)
	for rows := 4; rows >= 2; rows /= 2 {
		g.avx2Rows(k, rows)
	}
	g.avx2Row(k)
}

// avx2Rows writes the kernel of several rows. The codes of eight outputs are
// unpacked, four or eight columns at a time, and multiplied by every row, whose
// sums are Y0-Y3 and whose results are Y10-Y13. Neighbouring instructions belong
// to different rows: the scheduler for vectors holds far fewer operations than
// the latency of one row's chain could keep busy.
func (g *gen) avx2Rows(k kind, rows int) {
	g.l("tile%d", rows)
	for half := range 2 {
		at := fmt.Sprintf("%d_%d", rows, half)
		g.p("MOVQ x+24(FP), R8")
		g.p("MOVQ xstride+32(FP), CX")
		for r := 1; r < rows; r++ {
			g.p("LEAQ (R%d)(CX*1), R%d", 7+r, 8+r)
		}
		g.p("MOVQ DX, R12")
		g.p("MOVQ blocks+40(FP), CX")
		for r := range rows {
			g.p("VXORPS Y%d, Y%d, Y%d", 10+r, 10+r, 10+r)
		}
		if half == 0 {
			g.p("MOVQ CX, BX")
			g.p("IMULQ $%d, BX", k.block)
		}
		g.superBegin(k, "R12", "R13", at)
		if half == 0 {
			// The next tile's weights come while this one's are multiplied.
			for line := 0; line < k.block; line += 64 {
				g.p("PREFETCHT0 %d(R12)(BX*1)", line)
			}
		}
		switch k.bits {
		case 4:
			g.avx2Dots4(rows, half)
		case 8:
			g.avx2Dots8(rows, half)
		default:
			g.avx2Dots56(k, rows, half)
		}
		g.avx2Scales(k, half, 4, 5, 6)
		g.avx2Affine(k, rows, row, 4, 5)
		for r := range rows {
			g.p("ADDQ $%d, %s", xBytes, row(r))
		}
		g.superEnd(k, "R12", at)
		g.p("MOVQ DI, R8")
		for r := range rows {
			g.p("VMOVUPS Y%d, %d(R8)", 10+r, 32*half)
			if r < rows-1 {
				g.p("ADDQ SI, R8")
			}
		}
	}
	g.nextTile(rows)
}

// row is the register that points into activation row r.
func row(r int) string { return fmt.Sprintf("R%d", 8+r) }

// avx2Nibbles unpacks chunk c: its low nibbles to Y(lo), its high ones to Y(hi).
func (g *gen) avx2Nibbles(c, half, lo, hi int) {
	g.p("VMOVDQU %d(R12), Y%d", 64*c+32*half, lo)
	g.p("VPSRLW $4, Y%d, Y%d", lo, hi)
	g.p("VPAND Y15, Y%d, Y%d", lo, lo)
	g.p("VPAND Y15, Y%d, Y%d", hi, hi)
}

// avx2Dots4 multiplies four-bit codes. All 32 products of a pair of columns fit
// 16 bits: 8*2*15*127 = 30480.
func (g *gen) avx2Dots4(rows, half int) {
	g.p("VMOVDQU ·nibble<>(SB), Y15")
	for q := range 8 {
		if q%2 == 0 {
			g.avx2Nibbles(q/2, half, 4, 5)
		}
		for r := range rows {
			t := 6 + r
			if q == 0 {
				t = r
			}
			g.p("VPBROADCASTD %d(%s), Y%d", 4*q, row(r), t)
			g.p("VPMADDUBSW Y%d, Y%d, Y%d", t, 4+q%2, t)
			if q > 0 {
				g.p("VPADDW Y%d, Y%d, Y%d", t, r, r)
			}
		}
	}
	g.p("VMOVDQU ·ones16<>(SB), Y14")
	for r := range rows {
		g.p("VPMADDWD Y14, Y%d, Y%d", r, r)
	}
}

// avx2Dots56 multiplies codes of five or six bits, eight columns at a time:
// 4*63*127 = 32004 fits 16 bits. Q6_K's sums come out negated.
func (g *gen) avx2Dots56(k kind, rows, half int) {
	if k.bits == 6 {
		g.avx2Scales6(k, half)
		for r := range rows {
			g.p("VPBROADCASTD %d(%s), Y%d", xHalves, row(r), r)
			g.p("VPMADDWD 64(SP), Y%d, Y%d", r, r)
		}
	}
	for c := range 4 {
		g.p("VMOVDQU ·nibble<>(SB), Y15")
		g.avx2Nibbles(c, half, 4, 5)
		plane := 256 + 32*half
		if k.bits == 6 {
			plane += 64 * (c / 2)
		}
		g.p("VMOVDQU %d(R12), Y14", plane)
		g.plane(k, 2*c, 14, 4, 6)
		g.plane(k, 2*c+1, 14, 5, 7)
		for r := range rows {
			lo, hi := 6+r%2*2, 7+r%2*2
			g.p("VPBROADCASTD %d(%s), Y%d", 8*c, row(r), lo)
			g.p("VPBROADCASTD %d(%s), Y%d", 8*c+4, row(r), hi)
			g.p("VPMADDUBSW Y%d, Y4, Y%d", lo, lo)
			g.p("VPMADDUBSW Y%d, Y5, Y%d", hi, hi)
			g.p("VPADDW Y%d, Y%d, Y%d", lo, hi, lo)
			switch {
			case k.bits == 6:
				g.p("VPMADDWD %d(SP), Y%d, Y%d", c/2*32, lo, lo)
				g.p("VPSUBD Y%d, Y%d, Y%d", lo, r, r)
			case c == 0:
				g.p("VPMADDWD ·ones16<>(SB), Y%d, Y%d", lo, r)
			default:
				g.p("VPMADDWD ·ones16<>(SB), Y%d, Y%d", lo, lo)
				g.p("VPADDD Y%d, Y%d, Y%d", lo, r, r)
			}
		}
	}
}

// avx2Dots8 multiplies signed codes: their magnitudes by the activations with
// their signs. 2*128*127 = 32512 fits 16 bits, once.
func (g *gen) avx2Dots8(rows, half int) {
	g.p("VMOVDQU ·ones16<>(SB), Y15")
	for q := range 8 {
		w := 4 + q%2
		g.p("VPABSB %d(R12), Y%d", 64*q+32*half, w)
		for r := range rows {
			g.p("VPBROADCASTD %d(%s), Y%d", 4*q, row(r), 6+r)
		}
		for r := range rows {
			g.p("VPSIGNB %d(R12), Y%d, Y%d", 64*q+32*half, 6+r, 6+r)
			g.p("VPMADDUBSW Y%d, Y%d, Y%d", 6+r, w, 6+r)
		}
		for r := range rows {
			if q == 0 {
				g.p("VPMADDWD Y15, Y%d, Y%d", 6+r, r)
				continue
			}
			g.p("VPMADDWD Y15, Y%d, Y%d", 6+r, 6+r)
			g.p("VPADDD Y%d, Y%d, Y%d", 6+r, r, r)
		}
	}
}

func (g *gen) nextTile(rows int) {
	g.p("MOVQ R12, DX")
	g.p("ADDQ $64, DI")
	g.p("DECQ AX")
	g.p("JNE %s_tile%d", g.label, rows)
	g.p("VZEROUPPER")
	g.p("RET")
}

// plane adds the high bits of quad q, from the plane in register src, to the
// nibbles in dst.
func (g *gen) plane(k kind, q, src, dst, tmp int) {
	var left int
	switch k.bits {
	case 5:
		left = 4 - q
	case 6:
		left = 4 - q%4*2
	default:
		return
	}
	from := tmp
	switch {
	case left > 0:
		g.p("VPSLLW $%d, Y%d, Y%d", left, src, tmp)
	case left < 0:
		g.p("VPSRLW $%d, Y%d, Y%d", -left, src, tmp)
	default:
		from = src
	}
	g.p("VPAND ·plane%d<>(SB), Y%d, Y%d", k.bits, from, tmp)
	g.p("VPOR Y%d, Y%d, Y%d", tmp, dst, dst)
}

// avx2Scales decodes the scales of half a block to Y(d) and its minima to Y(m).
func (g *gen) avx2Scales(k kind, half, d, m, tmp int) {
	switch {
	case k.bits == 6:
		g.p("VCVTPH2PS %d(R13), Y%d", 16*half, d)
	case k.super:
		g.p("VPMOVZXBD %d(R12), Y%d", k.scales+8*half, d)
		g.p("VCVTDQ2PS Y%d, Y%d", d, d)
		g.p("VCVTPH2PS %d(R13), Y%d", 16*half, tmp)
		g.p("VMULPS Y%d, Y%d, Y%d", tmp, d, d)
		g.p("VPMOVZXBD %d(R12), Y%d", k.scales+16+8*half, m)
		g.p("VCVTDQ2PS Y%d, Y%d", m, m)
		g.p("VCVTPH2PS %d(R13), Y%d", 32+16*half, tmp)
		g.p("VMULPS Y%d, Y%d, Y%d", tmp, m, m)
	default:
		g.p("VCVTPH2PS %d(R12), Y%d", k.scales+16*half, d)
		switch {
		case k.mins:
			g.p("VCVTPH2PS %d(R12), Y%d", k.scales+32+16*half, m)
		case k.bias != 0:
			g.p("VMULPS ·minus%d<>(SB), Y%d, Y%d", k.bias, d, m)
		}
	}
}

// avx2Scales6 stores Q6_K's integer scales on the stack, as pairs of 16 bits a
// lane: the first half's twice, the second half's twice, and 32 times both.
func (g *gen) avx2Scales6(k kind, half int) {
	g.p("VPMOVSXBD %d(R12), Y14", k.scales+8*half)
	g.p("VPMOVSXBD %d(R12), Y15", k.scales+16+8*half)
	g.p("VPSLLD $16, Y14, Y9")
	g.p("VPBLENDW $0xaa, Y9, Y14, Y9")
	g.p("VMOVDQU Y9, 0(SP)")
	g.p("VPSLLD $16, Y15, Y9")
	g.p("VPBLENDW $0xaa, Y9, Y14, Y14")
	g.p("VPBLENDW $0xaa, Y9, Y15, Y15")
	g.p("VMOVDQU Y15, 32(SP)")
	g.p("VPSLLW $5, Y14, Y14")
	g.p("VMOVDQU Y14, 64(SP)")
}

// avx2Affine adds (scale*dot + minimum*sum) * activation scale to Y10, Y11, ...
// for n rows with dot products in Y0, Y1, ... Scales are in Y(d) and minima in
// Y(m). It uses Y6 to Y9. Like avx2Affine1 and the others, it rounds twice: the
// term and the result, in this order.
func (g *gen) avx2Affine(k kind, n int, row func(int) string, d, m int) {
	for i := range n {
		if k.hasMinimum() {
			g.p("VBROADCASTSS %d(%s), Y%d", xSum, row(i), 6+i)
		}
		g.p("VCVTDQ2PS Y%d, Y%d", i, i)
	}
	fma := "VFMADD231PS"
	if !k.hasMinimum() {
		for i := range n {
			g.p("VMULPS Y%d, Y%d, Y%d", d, i, i)
			g.p("VBROADCASTSS %d(%s), Y%d", xScale, row(i), 6+i)
		}
		if k.bits == 6 {
			fma = "VFNMADD231PS" // the dot products are negated
		}
		for i := range n {
			g.p("%s Y%d, Y%d, Y%d", fma, 6+i, i, 10+i)
		}
		return
	}
	for i := range n {
		g.p("VMULPS Y%d, Y%d, Y%d", m, 6+i, 6+i)
	}
	if k.super {
		fma = "VFMSUB231PS" // these minima are subtracted
	}
	for i := range n {
		g.p("%s Y%d, Y%d, Y%d", fma, d, i, 6+i)
		g.p("VBROADCASTSS %d(%s), Y%d", xScale, row(i), i)
	}
	for i := range n {
		g.p("VFMADD231PS Y%d, Y%d, Y%d", i, 6+i, 10+i)
	}
}

// avx2Row writes the kernel of one row. Both halves of a tile are multiplied
// together, so that each broadcast serves two and two chains of additions run.
func (g *gen) avx2Row(k kind) {
	g.l("tile1")
	g.p("MOVQ x+24(FP), R8")
	g.p("MOVQ DX, R12")
	g.p("MOVQ blocks+40(FP), CX")
	g.p("VXORPS Y0, Y0, Y0")
	g.p("VXORPS Y1, Y1, Y1")
	if k.bits != 8 {
		g.p("VMOVDQU ·nibble<>(SB), Y6")
	}
	g.superBegin(k, "R12", "R13", "1")
	for at := 0; at < k.block; at += 64 {
		g.p("PREFETCHT0 %d(R12)", prefetch+at)
	}
	if k.bits == 8 {
		g.avx2Row8()
	} else {
		g.avx2RowCodes(k)
	}
	for half := range 2 {
		dot := 4 + half
		g.avx2Scales(k, half, 8, 9, 10)
		g.p("VCVTDQ2PS Y%d, Y%d", dot, dot)
		g.avx2Affine1(k, 8, 9, half, dot, 11)
	}
	g.p("ADDQ $%d, R8", xBytes)
	g.superEnd(k, "R12", "1")
	g.p("VMOVUPS Y0, (DI)")
	g.p("VMOVUPS Y1, 32(DI)")
	g.nextTile(1)
}

// avx2Row8 leaves the dot products of the two halves in Y4 and Y5.
func (g *gen) avx2Row8() {
	g.p("VMOVDQU ·ones16<>(SB), Y6")
	for q := range 8 {
		g.p("VPBROADCASTD %d(R8), Y8", 4*q)
		for half := range 2 {
			t := 12 + half
			g.p("VMOVDQU %d(R12), Y10", 64*q+32*half)
			g.p("VPABSB Y10, Y11")
			g.p("VPSIGNB Y10, Y8, Y%d", t)
			g.p("VPMADDUBSW Y%d, Y11, Y%d", t, t)
			if q == 0 {
				g.p("VPMADDWD Y6, Y%d, Y%d", t, 4+half)
			} else {
				g.p("VPMADDWD Y6, Y%d, Y%d", t, t)
				g.p("VPADDD Y%d, Y%d, Y%d", t, 4+half, 4+half)
			}
		}
	}
}

// avx2RowCodes leaves the dot products of the two halves in Y4 and Y5; those of
// six bits are negated. 16-bit sums gather in Y2 and Y3.
func (g *gen) avx2RowCodes(k kind) {
	flush := map[int]int{4: 4, 5: 2, 6: 1}[k.bits] // chunks a 16-bit sum holds
	if k.bits == 6 {
		g.p("VPBROADCASTD %d(R8), Y8", xHalves)
		for half := range 2 {
			g.p("VPMOVSXBD %d(R12), Y10", k.scales+8*half)
			g.p("VPMOVSXBD %d(R12), Y11", k.scales+16+8*half)
			g.p("VPSLLD $16, Y10, Y12")
			g.p("VPSLLD $16, Y11, Y13")
			g.p("VPBLENDW $0xaa, Y12, Y10, Y12")
			g.p("VPBLENDW $0xaa, Y13, Y11, Y11")
			g.p("VPBLENDW $0xaa, Y13, Y10, Y10")
			g.p("VMOVDQU Y12, %d(SP)", 64*half)
			g.p("VMOVDQU Y11, %d(SP)", 64*half+32)
			g.p("VPSLLW $5, Y10, Y10")
			g.p("VPMADDWD Y8, Y10, Y%d", 4+half)
		}
	}
	for c := range 4 {
		g.p("VPBROADCASTD %d(R8), Y8", 8*c)
		g.p("VPBROADCASTD %d(R8), Y9", 8*c+4)
		for half := range 2 {
			g.p("VMOVDQU %d(R12), Y10", 64*c+32*half)
			g.p("VPSRLW $4, Y10, Y11")
			g.p("VPAND Y6, Y10, Y10")
			g.p("VPAND Y6, Y11, Y11")
			switch {
			case k.bits == 5 && c == 0:
				g.p("VMOVDQU %d(R12), Y%d", 256+32*half, 12+half)
			case k.bits == 6 && c%2 == 0:
				g.p("VMOVDQU %d(R12), Y%d", 256+64*(c/2)+32*half, 12+half)
			}
			g.plane(k, 2*c, 12+half, 10, 14)
			g.plane(k, 2*c+1, 12+half, 11, 15)
			g.p("VPMADDUBSW Y8, Y10, Y10")
			g.p("VPMADDUBSW Y9, Y11, Y11")
			sum := 2 + half
			if c%flush == 0 {
				g.p("VPADDW Y11, Y10, Y%d", sum)
			} else {
				g.p("VPADDW Y11, Y10, Y10")
				g.p("VPADDW Y10, Y%d, Y%d", sum, sum)
			}
			if (c+1)%flush != 0 {
				continue
			}
			switch {
			case k.bits == 6:
				g.p("VPMADDWD %d(SP), Y%d, Y%d", 64*half+c/2*32, sum, sum)
				g.p("VPSUBD Y%d, Y%d, Y%d", sum, 4+half, 4+half)
			case c < flush:
				g.p("VPMADDWD ·ones16<>(SB), Y%d, Y%d", sum, 4+half)
			default:
				g.p("VPMADDWD ·ones16<>(SB), Y%d, Y%d", sum, sum)
				g.p("VPADDD Y%d, Y%d, Y%d", sum, 4+half, 4+half)
			}
		}
	}
}

// avx2Affine1 does for the one row at R8 what avx2Affine does for several: the
// dot product is in Y(dot), the result in Y(acc).
func (g *gen) avx2Affine1(k kind, d, m, acc, dot, tmp int) {
	fma := "VFMADD231PS"
	if !k.hasMinimum() {
		if k.bits == 6 {
			fma = "VFNMADD231PS"
		}
		g.p("VMULPS Y%d, Y%d, Y%d", d, dot, dot)
		g.p("VBROADCASTSS %d(R8), Y%d", xScale, tmp)
		g.p("%s Y%d, Y%d, Y%d", fma, tmp, dot, acc)
		return
	}
	if k.super {
		fma = "VFMSUB231PS"
	}
	g.p("VBROADCASTSS %d(R8), Y%d", xSum, tmp)
	g.p("VMULPS Y%d, Y%d, Y%d", m, tmp, tmp)
	g.p("%s Y%d, Y%d, Y%d", fma, d, dot, tmp)
	g.p("VBROADCASTSS %d(R8), Y%d", xScale, dot)
	g.p("VFMADD231PS Y%d, Y%d, Y%d", dot, tmp, acc)
}
