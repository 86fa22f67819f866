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

// avx2Line is the size of a vector register.
const avx2Line = 32

// Memory of the kernels of several rows, behind R14, which is aligned so that no
// access crosses a cache line.
const (
	avx2Results = 0                          // of every row, 16 floats
	avx2Codes   = avx2Results + 64*avx2Batch // of a block, a byte each
	avx2Factors = avx2Codes + 512            // the scales and minima of a block
	avx2Sums    = avx2Factors + 4*avx2Line   // 5 bits: the sums of columns 0-15
	avx2Pairs   = avx2Sums                   // 6 bits: the integer scales
	avx2Row0    = avx2Sums + 8*avx2Line      // where the block of the first row is
	avx2Frame   = avx2Row0 + 8 + avx2Line    // with room to align
)

// avx2Batch is the largest number of rows: maxRows of the package.
const avx2Batch = 32

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

// avx2Rows writes the kernel of several rows. The codes of sixteen outputs are
// unpacked, four or eight columns at a time, and multiplied by every row: a
// broadcast of activations serves both halves of the tile. The dot products of
// row r are in Y(2r) and Y(2r+1), codes in Y8-Y11; the rest is temporary. The
// results of four rows do not fit the registers and stay in memory.
//
// What limits it is the number of vector operations, of which Zen 3 does a little
// more than three a cycle. Their order hardly matters, except that those on floats
// are best together.
func (g *gen) avx2Rows(k kind, rows int) {
	at := fmt.Sprint(rows)
	g.l("tile%d", rows)
	g.p("MOVQ x+24(FP), R8")
	g.p("MOVQ xstride+32(FP), CX")
	for r := 1; r < rows; r++ {
		g.p("LEAQ (R%d)(CX*1), R%d", 7+r, 8+r)
	}
	g.p("MOVQ DX, R12")
	g.p("MOVQ blocks+40(FP), CX")
	g.p("MOVQ CX, BX")
	g.p("IMULQ $%d, BX", k.block)
	if !inRegisters(rows) {
		g.p("VXORPS Y0, Y0, Y0")
	}
	for n := range 2 * rows {
		if inRegisters(rows) {
			g.p("VXORPS Y%d, Y%d, Y%d", 4+n, 4+n, 4+n)
		} else {
			g.p("VMOVUPS Y0, %d(R14)", avx2Results+avx2Line*n)
		}
	}
	g.avx2Constants(k)
	g.superBegin(k, "R12", "R13", at)
	// The next tile's weights come while this one's are multiplied.
	for line := 0; line < k.block; line += 64 {
		g.p("PREFETCHT0 %d(R12)(BX*1)", line)
	}
	if k.bits == 6 {
		g.avx2Scales6(k)
	}
	g.avx2Dots(k, rows, g.avx2Unpack)
	for half := range 2 {
		g.avx2Scales(k, half, 8+half, 10+half, 12)
	}
	g.avx2Affine(k, rows, "R14")
	for r := range rows {
		g.p("ADDQ $%d, %s", xBytes, row(r))
	}
	g.superEnd(k, "R12", at)
	g.p("MOVQ DI, R8")
	for n := range 2 * rows {
		from := 4 + n
		if !inRegisters(rows) {
			from = n
			g.p("VMOVUPS %d(R14), Y%d", avx2Results+avx2Line*n, n)
		}
		g.p("VMOVUPS Y%d, %d(R8)", from, n%2*avx2Line)
		if n%2 == 1 && n < 2*rows-1 {
			g.p("ADDQ SI, R8")
		}
	}
	g.nextTile(at)
}

// avx2RowsBatch writes the kernel of a larger number of rows, a multiple of four.
// A block is unpacked to memory once, for all groups of four. Here SI is the
// distance of the activation rows, DX walks the results and BX is their end.
func (g *gen) avx2RowsBatch(k kind) {
	g.p("SHLQ $6, CX")
	g.p("LEAQ %d(R14)(CX*1), BX", avx2Results)
	g.l("tilebatch")
	g.p("MOVQ x+24(FP), R8")
	g.p("MOVQ xstride+32(FP), SI")
	g.p("MOVQ DX, R12")
	g.p("MOVQ blocks+40(FP), CX")
	g.p("LEAQ %d(R14), DX", avx2Results)
	g.p("VXORPS Y0, Y0, Y0")
	g.l("clear")
	g.p("VMOVUPS Y0, (DX)")
	g.p("VMOVUPS Y0, %d(DX)", avx2Line)
	g.p("ADDQ $64, DX")
	g.p("CMPQ DX, BX")
	g.p("JNE %s_clear", g.label)
	g.avx2Constants(k)
	g.superBegin(k, "R12", "R13", "batch")
	g.p("MOVQ R8, %d(R14)", avx2Row0)
	g.p("MOVQ blocks+40(FP), R9")
	g.p("IMULQ $%d, R9", k.block)
	for line := 0; line < k.block; line += 64 {
		g.p("PREFETCHT0 %d(R12)(R9*1)", line)
	}
	for chunk := range 4 {
		g.avx2Unpack(k, chunk)
		for n := range 4 {
			g.p("VMOVDQU Y%d, %d(R14)", 8+n, avx2Codes+128*chunk+avx2Line*n)
		}
	}
	if k.bits == 6 {
		g.avx2Scales6(k)
	}
	factors := 2
	if k.hasMinimum() {
		factors = 4
	}
	for half := range 2 {
		g.avx2Scales(k, half, 8+half, 10+half, 12)
	}
	for n := range factors {
		g.p("VMOVUPS Y%d, %d(R14)", 8+n, avx2Factors+avx2Line*n)
	}
	g.p("LEAQ %d(R14), DX", avx2Results)
	g.l("group")
	g.p("LEAQ (R8)(SI*1), R9")
	g.p("LEAQ (R8)(SI*2), R10")
	g.p("LEAQ (R9)(SI*2), R11")
	g.avx2Dots(k, 4, func(_ kind, chunk int) {
		for n := range 4 {
			g.p("VMOVDQU %d(R14), Y%d", avx2Codes+128*chunk+avx2Line*n, 8+n)
		}
	})
	for n := range factors {
		g.p("VMOVUPS %d(R14), Y%d", avx2Factors+avx2Line*n, 8+n)
	}
	g.avx2Affine(k, 4, "DX")
	g.p("LEAQ (R8)(SI*4), R8")
	g.p("ADDQ $%d, DX", 4*64)
	g.p("CMPQ DX, BX")
	g.p("JNE %s_group", g.label)
	g.p("MOVQ %d(R14), R8", avx2Row0)
	g.p("ADDQ $%d, R8", xBytes)
	g.superEnd(k, "R12", "batch")
	g.p("MOVQ stride+8(FP), SI")
	g.p("MOVQ DI, R8")
	g.p("LEAQ %d(R14), DX", avx2Results)
	g.l("store")
	for half := range 2 {
		g.p("VMOVUPS %d(DX), Y%d", avx2Line*half, half)
		g.p("VMOVUPS Y%d, %d(R8)", half, avx2Line*half)
	}
	g.p("ADDQ SI, R8")
	g.p("ADDQ $64, DX")
	g.p("CMPQ DX, BX")
	g.p("JNE %s_store", g.label)
	g.nextTile("batch")
}

// row is the register that points into activation row r.
func row(r int) string { return fmt.Sprintf("R%d", 8+r) }

// inRegisters tells whether the results of so many rows are in Y4-Y7. Otherwise
// they are in memory.
func inRegisters(rows int) bool { return rows == 2 }

// avx2Constants loads the constant of a kind's kernels of several rows to Y15.
func (g *gen) avx2Constants(k kind) {
	switch k.bits {
	case 4, 5:
		g.p("VMOVDQU ·nibble<>(SB), Y15")
	case 8:
		g.p("VMOVDQU ·ones16<>(SB), Y15")
	}
}

// avx2Unpack unpacks a chunk of eight columns: the codes of the first four to Y8
// and Y9, those of the last four to Y10 and Y11.
func (g *gen) avx2Unpack(k kind, chunk int) {
	mask := "Y15"
	if k.bits == 6 {
		mask = "·nibble<>(SB)" // Y15 is in use
	}
	for half := range 2 {
		lo, hi := 8+half, 10+half
		g.p("VMOVDQU %d(R12), Y%d", 64*chunk+32*half, hi)
		g.p("VPAND %s, Y%d, Y%d", mask, hi, lo)
		g.p("VPSRLW $4, Y%d, Y%d", hi, hi)
		g.p("VPAND %s, Y%d, Y%d", mask, hi, hi)
		switch k.bits {
		case 5:
			g.p("VMOVDQU %d(R12), Y12", 256+32*half)
		case 6:
			g.p("VMOVDQU %d(R12), Y12", 256+64*(chunk/2)+32*half)
		}
		g.plane(k, 2*chunk, 12, lo, 13)
		g.plane(k, 2*chunk+1, 12, hi, 13)
	}
}

// avx2Dots computes the dot products of a block of which unpack provides a chunk.
func (g *gen) avx2Dots(k kind, rows int, unpack func(k kind, chunk int)) {
	switch k.bits {
	case 6:
		g.avx2Dots6(k, rows, unpack)
	case 8:
		g.avx2Dots8(rows)
	default:
		g.avx2Dots45(k, rows, unpack)
	}
}

// avx2Dots45 multiplies four- and five-bit codes. All 32 products of a pair of
// columns of four bits fit 16 bits, 8*2*15*127 = 30480, half of them of five
// bits, 4*2*31*127 = 31496.
func (g *gen) avx2Dots45(k kind, rows int, unpack func(k kind, chunk int)) {
	quads := 8
	if k.bits == 5 {
		quads = 4
	}
	for q := range 8 {
		if q%2 == 0 {
			unpack(k, q/2)
		}
		w := 8 + q%2*2
		for r := range rows {
			g.p("VPBROADCASTD %d(%s), Y12", 4*q, row(r))
			if q%quads == 0 {
				g.p("VPMADDUBSW Y12, Y%d, Y%d", w, 2*r)
				g.p("VPMADDUBSW Y12, Y%d, Y%d", w+1, 2*r+1)
				continue
			}
			g.p("VPMADDUBSW Y12, Y%d, Y13", w)
			g.p("VPMADDUBSW Y12, Y%d, Y12", w+1)
			g.p("VPADDW Y13, Y%d, Y%d", 2*r, 2*r)
			g.p("VPADDW Y12, Y%d, Y%d", 2*r+1, 2*r+1)
		}
		if q%quads != quads-1 {
			continue
		}
		g.p("VMOVDQU ·ones16<>(SB), Y14")
		for n := range 2 * rows {
			g.p("VPMADDWD Y14, Y%d, Y%d", n, n)
			switch sum := avx2Sums + avx2Line*n; {
			case q < 7:
				g.p("VMOVDQU Y%d, %d(R14)", n, sum)
			case quads < 8:
				g.p("VPADDD %d(R14), Y%d, Y%d", sum, n, n)
			}
		}
	}
}

// avx2Dots6 multiplies codes of six bits, eight columns at a time: 4*63*127 =
// 32004 fits 16 bits. The sums come out negated.
func (g *gen) avx2Dots6(k kind, rows int, unpack func(k kind, chunk int)) {
	for r := range rows {
		g.p("VPBROADCASTD %d(%s), Y12", xHalves, row(r))
		for half := range 2 {
			g.p("VPMADDWD %d(R14), Y12, Y%d", pairs6(half, 2), 2*r+half)
		}
	}
	for chunk := range 4 {
		unpack(k, chunk)
		for r := range rows {
			g.p("VPBROADCASTD %d(%s), Y12", 8*chunk, row(r))
			g.p("VPBROADCASTD %d(%s), Y13", 8*chunk+4, row(r))
			g.p("VPMADDUBSW Y12, Y8, Y14")
			g.p("VPMADDUBSW Y12, Y9, Y12")
			g.p("VPMADDUBSW Y13, Y10, Y15")
			g.p("VPMADDUBSW Y13, Y11, Y13")
			g.p("VPADDW Y15, Y14, Y14")
			g.p("VPADDW Y13, Y12, Y12")
			g.p("VPMADDWD %d(R14), Y14, Y14", pairs6(0, chunk/2))
			g.p("VPMADDWD %d(R14), Y12, Y12", pairs6(1, chunk/2))
			g.p("VPSUBD Y14, Y%d, Y%d", 2*r, 2*r)
			g.p("VPSUBD Y12, Y%d, Y%d", 2*r+1, 2*r+1)
		}
	}
}

// avx2Dots8 multiplies signed codes: their magnitudes by the activations with
// their signs. 2*128*127 = 32512 fits 16 bits, once.
func (g *gen) avx2Dots8(rows int) {
	for q := range 8 {
		g.p("VPABSB %d(R12), Y8", 64*q)
		g.p("VPABSB %d(R12), Y9", 64*q+32)
		for r := range rows {
			a, b := 10+r%2*2, 11+r%2*2
			g.p("VPBROADCASTD %d(%s), Y%d", 4*q, row(r), b)
			g.p("VPSIGNB %d(R12), Y%d, Y%d", 64*q, b, a)
			g.p("VPSIGNB %d(R12), Y%d, Y%d", 64*q+32, b, b)
			g.p("VPMADDUBSW Y%d, Y8, Y%d", a, a)
			g.p("VPMADDUBSW Y%d, Y9, Y%d", b, b)
			if q == 0 {
				g.p("VPMADDWD Y15, Y%d, Y%d", a, 2*r)
				g.p("VPMADDWD Y15, Y%d, Y%d", b, 2*r+1)
				continue
			}
			g.p("VPMADDWD Y15, Y%d, Y%d", a, a)
			g.p("VPMADDWD Y15, Y%d, Y%d", b, b)
			g.p("VPADDD Y%d, Y%d, Y%d", a, 2*r, 2*r)
			g.p("VPADDD Y%d, Y%d, Y%d", b, 2*r+1, 2*r+1)
		}
	}
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

// pairs6 is where part of Q6_K's integer scales of a half tile is kept.
func pairs6(half, part int) int { return avx2Pairs + 3*avx2Line*half + avx2Line*part }

// avx2Scales6 stores Q6_K's integer scales, as pairs of 16 bits a lane: the first
// half's twice, the second half's twice, and 32 times both.
func (g *gen) avx2Scales6(k kind) {
	for half := range 2 {
		g.p("VPMOVSXBD %d(R12), Y12", k.scales+8*half)
		g.p("VPMOVSXBD %d(R12), Y13", k.scales+16+8*half)
		g.p("VPSLLD $16, Y12, Y14")
		g.p("VPBLENDW $0xaa, Y14, Y12, Y14")
		g.p("VMOVDQU Y14, %d(R14)", pairs6(half, 0))
		g.p("VPSLLD $16, Y13, Y14")
		g.p("VPBLENDW $0xaa, Y14, Y12, Y12")
		g.p("VPBLENDW $0xaa, Y14, Y13, Y13")
		g.p("VMOVDQU Y13, %d(R14)", pairs6(half, 1))
		g.p("VPSLLW $5, Y12, Y12")
		g.p("VMOVDQU Y12, %d(R14)", pairs6(half, 2))
	}
}

// avx2Affine adds (scale*dot + minimum*sum) * activation scale to the results,
// which are behind the register results or in Y4-Y7.
// Scales are in Y8 and Y9, minima in Y10 and Y11; it uses Y12 to Y14. Like
// avx2Affine1 and the others, it rounds twice: the term and the result, in this
// order.
func (g *gen) avx2Affine(k kind, rows int, results string) {
	for n := range 2 * rows {
		g.p("VCVTDQ2PS Y%d, Y%d", n, n)
	}
	term, add := "VFMADD132PS", "VFMADD"
	switch {
	case k.super && k.hasMinimum():
		term = "VFMSUB132PS" // these minima are subtracted
	case k.bits == 6:
		add = "VFNMADD" // the dot products are negated
	}
	for r := range rows {
		a, b := 12+2*r%3, 12+(2*r+1)%3
		if k.hasMinimum() {
			g.p("VBROADCASTSS %d(%s), Y%d", xSum, row(r), a)
			g.p("VMULPS Y10, Y%d, Y%d", a, b)
			g.p("VMULPS Y11, Y%d, Y%d", a, a)
			g.p("%s Y8, Y%d, Y%d", term, b, 2*r)
			g.p("%s Y9, Y%d, Y%d", term, a, 2*r+1)
		} else {
			g.p("VMULPS Y8, Y%d, Y%d", 2*r, 2*r)
			g.p("VMULPS Y9, Y%d, Y%d", 2*r+1, 2*r+1)
		}
		g.p("VBROADCASTSS %d(%s), Y%d", xScale, row(r), b)
		for n := 2 * r; n < 2*r+2; n++ {
			if inRegisters(rows) {
				g.p("%s231PS Y%d, Y%d, Y%d", add, b, n, 4+n)
				continue
			}
			g.p("%s213PS %d(%s), Y%d, Y%d", add, avx2Line*n, results, b, n)
			g.p("VMOVUPS Y%d, %d(%s)", n, avx2Line*n, results)
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
