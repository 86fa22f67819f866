//go:build ignore

package main

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
// bytes, DX the tile, BX its size, CX the blocks left, AX the tiles left, R8-R11
// point into the activation rows, R12 is the block, R13 the header and R14 the
// scratch memory.
func (g *gen) avx2Kernel(k kind) {
	g.function(k.name+"AVX2", "xblock", avx2Frame)
	g.p("MOVQ dst+0(FP), DI")
	g.p("MOVQ stride+8(FP), SI")
	g.p("MOVQ w+16(FP), DX")
	g.p("MOVQ tiles+56(FP), AX")
	g.p("LEAQ %d(SP), R14", avx2Line-1)
	g.p("ANDQ $~%d, R14", avx2Line-1)
	if k.bits == 8 {
		g.dispatch(4) // nothing to unpack
	} else {
		g.dispatch(8)
		g.avx2RowsBatch(k)
	}
	for rows := 4; rows >= 2; rows /= 2 {
		g.avx2Rows(k, rows)
	}
	g.avx2Row(k)
}

func (g *gen) nextTile(at string) {
	g.p("MOVQ R12, DX")
	g.p("ADDQ $64, DI")
	g.p("DECQ AX")
	g.p("JNE %s_tile%s", g.label, at)
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
	g.nextTile("1")
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
