//go:build ignore

package main

import "fmt"

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
