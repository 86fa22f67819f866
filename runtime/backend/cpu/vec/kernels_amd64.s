#include "textflag.h"

// Broadcast constants of exp, one vector each.
#define CONST(name, value) \
	DATA name+0(SB)/4, $value; \
	DATA name+4(SB)/4, $value; \
	DATA name+8(SB)/4, $value; \
	DATA name+12(SB)/4, $value; \
	DATA name+16(SB)/4, $value; \
	DATA name+20(SB)/4, $value; \
	DATA name+24(SB)/4, $value; \
	DATA name+28(SB)/4, $value; \
	GLOBL name(SB), RODATA|NOPTR, $32

CONST(expLow<>, 0xc2d00000)    // -104: exp rounds to 0
CONST(expHigh<>, 0x42b20000)   // 89: exp overflows
CONST(log2E<>, 0x3fb8aa3b)     // 1/ln 2
CONST(ln2High<>, 0x3f317200)   // ln 2 in 15 bits, so that n*ln2High is exact
CONST(ln2Low<>, 0x35bfbe8e)    // ln 2 - ln2High
CONST(expC2<>, 0x3efffffe)     // minimax of (exp(r)-1-r)/r^2, |r| <= ln(2)/2,
CONST(expC3<>, 0x3e2aaa49)     // relative error of exp below 2^-28
CONST(expC4<>, 0x3d2aac79)
CONST(expC5<>, 0x3c091cf1)
CONST(expC6<>, 0x3ab5121a)
CONST(one<>, 0x3f800000)
CONST(bias<>, 127)
CONST(sign<>, 0x80000000)

// EXP replaces x by exp(x). With x = n*ln 2 + r, exp(x) = 2^n exp(r); 2^n is
// applied in two halves, since n itself may be beyond a float's exponent.
// NaN passes: MAX and MIN return their second source, written first here.
#define EXP(x, n, p, t) \
	VMOVUPS expLow<>(SB), t; \
	VMAXPS x, t, x; \
	VMOVUPS expHigh<>(SB), t; \
	VMINPS x, t, x; \
	VMULPS log2E<>(SB), x, n; \
	VROUNDPS $0, n, n; \
	VFNMADD231PS ln2High<>(SB), n, x; \
	VFNMADD231PS ln2Low<>(SB), n, x; \
	VMOVUPS expC6<>(SB), p; \
	VFMADD213PS expC5<>(SB), x, p; \
	VFMADD213PS expC4<>(SB), x, p; \
	VFMADD213PS expC3<>(SB), x, p; \
	VFMADD213PS expC2<>(SB), x, p; \
	VMULPS x, x, t; \
	VFMADD213PS x, t, p; \
	VADDPS one<>(SB), p, p; \
	VCVTPS2DQ n, n; \
	VPSRAD $1, n, t; \
	VPSUBD t, n, n; \
	VPADDD bias<>(SB), t, t; \
	VPADDD bias<>(SB), n, n; \
	VPSLLD $23, t, t; \
	VPSLLD $23, n, n; \
	VMULPS t, p, p; \
	VMULPS n, p, x

// func sumSquaresAVX2(x *float32, n int, tail *[8]float32) float32
TEXT ·sumSquaresAVX2(SB), NOSPLIT, $0-28
	MOVQ x+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ tail+16(FP), DX
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VMOVUPS (DX), Y3
	VMULPS Y3, Y3, Y3

loop32:
	CMPQ CX, $32
	JLT  loop8
	VMOVUPS (SI), Y4
	VMOVUPS 32(SI), Y5
	VMOVUPS 64(SI), Y6
	VMOVUPS 96(SI), Y7
	VFMADD231PS Y4, Y4, Y0
	VFMADD231PS Y5, Y5, Y1
	VFMADD231PS Y6, Y6, Y2
	VFMADD231PS Y7, Y7, Y3
	ADDQ $128, SI
	SUBQ $32, CX
	JMP  loop32

loop8:
	TESTQ CX, CX
	JZ    reduce
	VMOVUPS (SI), Y4
	VFMADD231PS Y4, Y4, Y0
	ADDQ $32, SI
	SUBQ $8, CX
	JMP  loop8

reduce:
	VADDPS Y1, Y0, Y0
	VADDPS Y3, Y2, Y2
	VADDPS Y2, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPS X1, X0, X0
	VMOVHLPS X0, X0, X1
	VADDPS X1, X0, X0
	VMOVSHDUP X0, X1
	VADDSS X1, X0, X0
	VMOVSS X0, ret+24(FP)
	VZEROUPPER
	RET

// func scaleMulAVX2(dst, x, w *float32, n int, scale float32)
TEXT ·scaleMulAVX2(SB), NOSPLIT, $0-36
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ w+16(FP), DX
	MOVQ n+24(FP), CX
	VBROADCASTSS scale+32(FP), Y1

loop:
	VMULPS (SI), Y1, Y0
	VMULPS (DX), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DX
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func siluMulAVX2(dst, gate, up *float32, n int)
TEXT ·siluMulAVX2(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ gate+8(FP), SI
	MOVQ up+16(FP), DX
	MOVQ n+24(FP), CX

loop:
	VMOVUPS (SI), Y4
	VXORPS sign<>(SB), Y4, Y0
	EXP(Y0, Y1, Y2, Y3)
	VADDPS one<>(SB), Y0, Y0
	VDIVPS Y0, Y4, Y4
	VMULPS (DX), Y4, Y4
	VMOVUPS Y4, (DI)
	ADDQ $32, SI
	ADDQ $32, DX
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func addAVX2(dst, x *float32, n int)
TEXT ·addAVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ n+16(FP), CX

loop:
	VMOVUPS (DI), Y0
	VADDPS (SI), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func scaledExpAVX2(dst, x *float32, n int, scale, shift float32)
TEXT ·scaledExpAVX2(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ n+16(FP), CX
	VBROADCASTSS scale+24(FP), Y5
	VBROADCASTSS shift+28(FP), Y6

loop:
	VMOVUPS (SI), Y0
	VSUBPS Y6, Y0, Y0
	VMULPS Y5, Y0, Y0
	EXP(Y0, Y1, Y2, Y3)
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

CONST(maxF16<>, 0x477fe000)  // 65504
CONST(minF16<>, 0xc77fe000)
CONST(maxBF16<>, 0x7f7f0000)
CONST(minBF16<>, 0xff7f0000)
CONST(round16<>, 0x7fff)
CONST(intOne<>, 1)
CONST(quiet<>, 0x00400000)

// func toF16AVX2(dst *uint16, src *float32, n int)
TEXT ·toF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	VMOVUPS maxF16<>(SB), Y1
	VMOVUPS minF16<>(SB), Y2

loop:
	VMINPS (SI), Y1, Y0
	VMAXPS Y0, Y2, Y0
	VCVTPS2PH $0, Y0, (DI)
	ADDQ $32, SI
	ADDQ $16, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func fromF16AVX2(dst *float32, src *uint16, n int)
TEXT ·fromF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX

loop32:
	CMPQ CX, $32
	JLT  loop8
	VCVTPH2PS (SI), Y0
	VCVTPH2PS 16(SI), Y1
	VCVTPH2PS 32(SI), Y2
	VCVTPH2PS 48(SI), Y3
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	VMOVUPS Y2, 64(DI)
	VMOVUPS Y3, 96(DI)
	ADDQ $64, SI
	ADDQ $128, DI
	SUBQ $32, CX
	JMP  loop32

loop8:
	TESTQ CX, CX
	JZ    done
	VCVTPH2PS (SI), Y0
	VMOVUPS Y0, (DI)
	ADDQ $16, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JMP  loop8

done:
	VZEROUPPER
	RET

// func toBF16AVX2(dst *uint16, src *float32, n int)
TEXT ·toBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	VMOVUPS maxBF16<>(SB), Y1
	VMOVUPS minBF16<>(SB), Y2
	VMOVDQU round16<>(SB), Y3
	VMOVDQU intOne<>(SB), Y4

loop:
	VMOVUPS (SI), Y7
	VMINPS Y7, Y1, Y0
	VMAXPS Y0, Y2, Y0
	VPSRLD $16, Y0, Y5
	VPAND Y4, Y5, Y5
	VPADDD Y3, Y5, Y5
	VPADDD Y5, Y0, Y0
	VCMPPS $3, Y7, Y7, Y6         // NaN: keep the bits, made quiet
	VORPS quiet<>(SB), Y7, Y7
	VBLENDVPS Y6, Y7, Y0, Y0
	VPSRLD $16, Y0, Y0
	VEXTRACTI128 $1, Y0, X5
	VPACKUSDW X5, X0, X0
	VMOVDQU X0, (DI)
	ADDQ $32, SI
	ADDQ $16, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

// func fromBF16AVX2(dst *float32, src *uint16, n int)
TEXT ·fromBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX

loop:
	VPMOVZXWD (SI), Y0
	VPSLLD $16, Y0, Y0
	VMOVDQU Y0, (DI)
	ADDQ $16, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET

DATA pairs<>+0(SB)/4, $0
DATA pairs<>+4(SB)/4, $0
DATA pairs<>+8(SB)/4, $1
DATA pairs<>+12(SB)/4, $1
DATA pairs<>+16(SB)/4, $2
DATA pairs<>+20(SB)/4, $2
DATA pairs<>+24(SB)/4, $3
DATA pairs<>+28(SB)/4, $3
GLOBL pairs<>(SB), RODATA|NOPTR, $32

// func rotateInterleavedAVX2(x, cos, sin *float32, pairs int)
TEXT ·rotateInterleavedAVX2(SB), NOSPLIT, $0-32
	MOVQ x+0(FP), DI
	MOVQ cos+8(FP), SI
	MOVQ sin+16(FP), DX
	MOVQ pairs+24(FP), CX
	VMOVUPS pairs<>(SB), Y5

loop:
	VBROADCASTF128 (SI), Y1
	VBROADCASTF128 (DX), Y2
	VPERMILPS Y5, Y1, Y1          // c0 c0 c1 c1 c2 c2 c3 c3
	VPERMILPS Y5, Y2, Y2
	VMOVUPS (DI), Y0              // a0 b0 a1 b1 ...
	VPERMILPS $0xb1, Y0, Y3       // b0 a0 b1 a1 ...
	VMULPS Y2, Y3, Y3
	VFMADDSUB213PS Y3, Y1, Y0     // a*c - b*s, b*c + a*s
	VMOVUPS Y0, (DI)
	ADDQ $16, SI
	ADDQ $16, DX
	ADDQ $32, DI
	SUBQ $4, CX
	JNZ  loop
	VZEROUPPER
	RET

// func rotateHalvesAVX2(x, cos, sin *float32, pairs int)
TEXT ·rotateHalvesAVX2(SB), NOSPLIT, $0-32
	MOVQ x+0(FP), DI
	MOVQ cos+8(FP), SI
	MOVQ sin+16(FP), DX
	MOVQ pairs+24(FP), CX
	LEAQ (DI)(CX*4), R8

loop:
	VMOVUPS (DI), Y0
	VMOVUPS (R8), Y1
	VMOVUPS (SI), Y2
	VMOVUPS (DX), Y3
	VMULPS Y3, Y1, Y4
	VMULPS Y3, Y0, Y5
	VFMSUB213PS Y4, Y2, Y0        // a*c - b*s
	VFMADD213PS Y5, Y2, Y1        // b*c + a*s
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, (R8)
	ADDQ $32, SI
	ADDQ $32, DX
	ADDQ $32, DI
	ADDQ $32, R8
	SUBQ $8, CX
	JNZ  loop
	VZEROUPPER
	RET
