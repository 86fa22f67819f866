#include "textflag.h"

// STEP multiplies the 16 codes of a step with two vectors of scales.
#define STEP(offset, low, high, a, b) \
	VPMOVSXBD offset+0(SI), a; \
	VPMOVSXBD offset+8(SI), b; \
	VCVTDQ2PS a, a; \
	VCVTDQ2PS b, b; \
	VMULPS low, a, a; \
	VMULPS high, b, b; \
	VMOVUPS a, (4*offset)+0(DI); \
	VMOVUPS b, (4*offset)+32(DI)

// func widenKeysAVX2(dst *float32, codes *int8, scales *uint16, k int)
TEXT ·widenKeysAVX2(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ codes+8(FP), SI
	MOVQ scales+16(FP), BX
	MOVQ k+24(FP), CX

block:
	VCVTPH2PS 0(BX), Y0
	VCVTPH2PS 16(BX), Y1
	MOVQ $8, DX

steps:
	STEP(0, Y0, Y1, Y2, Y3)
	STEP(16, Y0, Y1, Y4, Y5)
	STEP(32, Y0, Y1, Y6, Y7)
	STEP(48, Y0, Y1, Y8, Y9)
	ADDQ $64, SI
	ADDQ $256, DI
	DECQ DX
	JNZ  steps
	ADDQ $128, BX
	SUBQ $32, CX
	JNZ  block
	VZEROUPPER
	RET

// func widenValuesAVX2(dst *float32, codes *int8, scales *uint16)
TEXT ·widenValuesAVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ codes+8(FP), SI
	MOVQ scales+16(FP), BX
	MOVQ $16, DX

tokens:
	VCVTPH2PS (BX), X0
	VBROADCASTSS X0, Y1
	VPERMILPS $0x55, X0, X2
	VBROADCASTSS X2, Y2
	VPERMILPS $0xaa, X0, X3
	VBROADCASTSS X3, Y3
	VPERMILPS $0xff, X0, X4
	VBROADCASTSS X4, Y4
	STEP(0, Y1, Y1, Y5, Y6)
	STEP(16, Y2, Y2, Y7, Y8)
	STEP(32, Y3, Y3, Y9, Y10)
	STEP(48, Y4, Y4, Y11, Y12)
	ADDQ $64, SI
	ADDQ $256, DI
	ADDQ $8, BX
	DECQ DX
	JNZ  tokens
	VZEROUPPER
	RET
