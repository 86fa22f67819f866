//go:build ignore

package main

import "fmt"

// avx2Float writes the kernel of float weights. Rows: each row has two chains of
// fused multiply-adds, Y0-Y7, one a half of the tile. One row: its two chains
// would wait for each other's latency, so four tiles run together.
func (g *gen) avx2Float(f float) {
	g.function(f.name+"AVX2", "float32", 0)
	g.p("MOVQ dst+0(FP), DI")
	g.p("MOVQ stride+8(FP), SI")
	g.p("MOVQ w+16(FP), DX")
	g.p("MOVQ tiles+56(FP), AX")
	g.dispatch(4)
	for rows := 4; rows >= 2; rows /= 2 {
		g.l("tile%d", rows)
		g.p("MOVQ x+24(FP), R8")
		g.p("MOVQ xstride+32(FP), CX")
		for r := 1; r < rows; r++ {
			g.p("LEAQ (R%d)(CX*1), R%d", 7+r, 8+r)
		}
		g.p("MOVQ DX, R12")
		g.p("MOVQ blocks+40(FP), CX")
		g.p("SHLQ $3, CX") // four columns a turn
		for i := range 2 * rows {
			g.p("VXORPS Y%d, Y%d, Y%d", i, i, i)
		}
		g.l("cols%d", rows)
		for c := range 4 {
			for half := range 2 {
				g.avx2LoadFloat(f, "R12", (16*c+8*half)*f.size, 8+half)
			}
			for r := range rows {
				g.p("VBROADCASTSS %d(%s), Y%d", 4*c, row(r), 10+r)
			}
			for i := range 2 * rows {
				g.p("VFMADD231PS Y%d, Y%d, Y%d", 8+i%2, 10+i/2, i)
			}
		}
		for r := range rows {
			g.p("ADDQ $16, %s", row(r))
		}
		g.p("ADDQ $%d, R12", 64*f.size)
		g.p("DECQ CX")
		g.p("JNE %s_cols%d", g.label, rows)
		g.p("MOVQ DI, R8")
		for r := range rows {
			g.p("VMOVUPS Y%d, (R8)", 2*r)
			g.p("VMOVUPS Y%d, 32(R8)", 2*r+1)
			g.p("ADDQ SI, R8")
		}
		g.nextTile(fmt.Sprint(rows))
	}
	// DX walks the tiles, BX is the size of one.
	g.l("tile1")
	g.p("MOVQ blocks+40(FP), BX")
	g.p("IMUL3Q $%d, BX, BX", 16*32*f.size)
	for _, n := range []int{4, 1} {
		g.l("next%d", n)
		g.p("CMPQ AX, $%d", n)
		g.p("JLT %s_next%d", g.label, n/4)
		g.p("MOVQ x+24(FP), R8")
		g.p("MOVQ blocks+40(FP), CX")
		g.p("SHLQ $3, CX")
		for t := 1; t < n; t++ {
			prev := "DX"
			if t > 1 {
				prev = tilePointers[t-1]
			}
			g.p("LEAQ (%s)(BX*1), %s", prev, tilePointers[t])
		}
		for i := range 2 * n {
			g.p("VXORPS Y%d, Y%d, Y%d", i, i, i)
		}
		g.l("cols1_%d", n)
		for t := range n {
			for at := 0; at < 64*f.size; at += 64 {
				g.p("PREFETCHT0 %d(%s)", prefetch/2+at, tilePointers[t])
			}
		}
		for c := range 4 {
			g.p("VBROADCASTSS %d(R8), Y15", 4*c)
			for i := range 2 * n {
				w := 8 + i%4
				g.avx2LoadFloat(f, tilePointers[i/2], (16*c+8*(i%2))*f.size, w)
				g.p("VFMADD231PS Y15, Y%d, Y%d", w, i)
			}
		}
		g.p("ADDQ $16, R8")
		for t := range n {
			g.p("ADDQ $%d, %s", 64*f.size, tilePointers[t])
		}
		g.p("DECQ CX")
		g.p("JNE %s_cols1_%d", g.label, n)
		for i := range 2 * n {
			g.p("VMOVUPS Y%d, %d(DI)", i, 32*i)
		}
		g.p("MOVQ %s, DX", tilePointers[n-1])
		g.p("ADDQ $%d, DI", 64*n)
		g.p("SUBQ $%d, AX", n)
		g.p("JMP %s_next%d", g.label, n)
	}
	g.l("next0")
	g.p("VZEROUPPER")
	g.p("RET")
}

// tilePointers are the registers that walk the tiles multiplied together.
var tilePointers = []string{"DX", "R9", "R10", "R11"}

// avx2LoadFloat loads eight weights as float32.
func (g *gen) avx2LoadFloat(f float, base string, offset, to int) {
	switch f.name {
	case "f32":
		g.p("VMOVUPS %d(%s), Y%d", offset, base, to)
	case "f16":
		g.p("VCVTPH2PS %d(%s), Y%d", offset, base, to)
	case "bf16":
		g.p("VPMOVZXWD %d(%s), Y%d", offset, base, to)
		g.p("VPSLLD $16, Y%d, Y%d", to, to)
	}
}

// avx512Float writes the kernel of float weights: one chain a row, Z0-Z7; of one
// row, four tiles together.
func (g *gen) avx512Float(f float) {
	g.function(f.name+"AVX512", "float32", 0)
	g.p("MOVQ dst+0(FP), DI")
	g.p("MOVQ w+16(FP), DX")
	g.dispatch(8)
	for rows := 8; rows >= 2; rows /= 2 {
		g.avx512Begin(rows)
		g.p("SHLQ $3, CX") // four columns a turn
		for i := range rows {
			g.p("VPXORD Z%d, Z%d, Z%d", i, i, i)
		}
		g.l("cols%d", rows)
		for c := range 4 {
			g.avx512LoadFloat(f, "DX", 16*c*f.size, 8+c)
			for r := range rows {
				g.p("VFMADD231PS.BCST %d(%s), Z%d, Z%d", 4*c, row512(r), 8+c, r)
			}
		}
		for r := range rows {
			g.p("ADDQ $16, %s", row512(r))
		}
		g.p("ADDQ $%d, DX", 64*f.size)
		g.p("DECQ CX")
		g.p("JNE %s_cols%d", g.label, rows)
		g.avx512End(rows, 0)
	}
	g.l("tile1")
	g.p("MOVQ tiles+56(FP), AX")
	g.p("MOVQ blocks+40(FP), BX")
	g.p("IMUL3Q $%d, BX, BX", 16*32*f.size)
	for _, n := range []int{4, 1} {
		g.l("next%d", n)
		g.p("CMPQ AX, $%d", n)
		g.p("JLT %s_next%d", g.label, n/4)
		g.p("MOVQ x+24(FP), R8")
		g.p("MOVQ blocks+40(FP), CX")
		g.p("SHLQ $3, CX")
		for t := 1; t < n; t++ {
			g.p("LEAQ (%s)(BX*1), %s", tilePointers[t-1], tilePointers[t])
		}
		for i := range n {
			g.p("VPXORD Z%d, Z%d, Z%d", i, i, i)
		}
		g.l("cols1_%d", n)
		for t := range n {
			for at := 0; at < 64*f.size; at += 64 {
				g.p("PREFETCHT0 %d(%s)", prefetch/2+at, tilePointers[t])
			}
		}
		for c := range 4 {
			for t := range n {
				g.avx512LoadFloat(f, tilePointers[t], 16*c*f.size, 8+t)
				g.p("VFMADD231PS.BCST %d(R8), Z%d, Z%d", 4*c, 8+t, t)
			}
		}
		g.p("ADDQ $16, R8")
		for t := range n {
			g.p("ADDQ $%d, %s", 64*f.size, tilePointers[t])
		}
		g.p("DECQ CX")
		g.p("JNE %s_cols1_%d", g.label, n)
		for i := range n {
			g.p("VMOVUPS Z%d, %d(DI)", i, 64*i)
		}
		g.p("MOVQ %s, DX", tilePointers[n-1])
		g.p("ADDQ $%d, DI", 64*n)
		g.p("SUBQ $%d, AX", n)
		g.p("JMP %s_next%d", g.label, n)
	}
	g.l("next0")
	g.p("VZEROUPPER")
	g.p("RET")
}

// avx512LoadFloat loads sixteen weights as float32.
func (g *gen) avx512LoadFloat(f float, base string, offset, to int) {
	switch f.name {
	case "f32":
		g.p("VMOVUPS %d(%s), Z%d", offset, base, to)
	case "f16":
		g.p("VCVTPH2PS %d(%s), Z%d", offset, base, to)
	case "bf16":
		g.p("VPMOVZXWD %d(%s), Z%d", offset, base, to)
		g.p("VPSLLD $16, Z%d, Z%d", to, to)
	}
}

// row512 is the register that points into activation row r.
func row512(r int) string {
	return [...]string{"R8", "R9", "R10", "R11", "R12", "R13", "AX", "BX"}[r]
}

// avx512Begin begins a tile: pointers to the rows, and the blocks left in CX.
func (g *gen) avx512Begin(rows int) {
	g.l("tile%d", rows)
	g.p("MOVQ x+24(FP), R8")
	g.p("MOVQ xstride+32(FP), CX")
	for r := 1; r < rows; r++ {
		g.p("LEAQ (%s)(CX*1), %s", row512(r-1), row512(r))
	}
	g.p("MOVQ blocks+40(FP), CX")
}

// avx512End stores the rows' results, in registers from acc on, and goes on to
// the next tile; DX is there already.
func (g *gen) avx512End(rows, acc int) {
	g.p("MOVQ DI, R8")
	g.p("MOVQ stride+8(FP), CX")
	for r := range rows {
		g.p("VMOVUPS Z%d, (R8)", acc+r)
		g.p("ADDQ CX, R8")
	}
	g.p("ADDQ $64, DI")
	g.p("DECQ tiles+56(FP)")
	g.p("JNE %s_tile%d", g.label, rows)
	g.p("VZEROUPPER")
	g.p("RET")
}
