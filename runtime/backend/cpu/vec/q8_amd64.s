#include "textflag.h"

DATA magnitude<>+0(SB)/4, $0x7fffffff
GLOBL magnitude<>(SB), RODATA|NOPTR, $4

DATA most<>+0(SB)/4, $0x42fe0000 // 127
GLOBL most<>(SB), RODATA|NOPTR, $4

DATA least<>+0(SB)/4, $0xc2fe0000 // -127
GLOBL least<>(SB), RODATA|NOPTR, $4

// Packing works on halves of a register: this is the order of its results.
DATA packed<>+0(SB)/4, $0
DATA packed<>+4(SB)/4, $4
DATA packed<>+8(SB)/4, $1
DATA packed<>+12(SB)/4, $5
DATA packed<>+16(SB)/4, $2
DATA packed<>+20(SB)/4, $6
DATA packed<>+24(SB)/4, $3
DATA packed<>+28(SB)/4, $7
GLOBL packed<>(SB), RODATA|NOPTR, $32

// func largestAVX2(x *[32]float32) uint32
TEXT ·largestAVX2(SB), NOSPLIT, $0-12
	MOVQ x+0(FP), SI
	VPBROADCASTD magnitude<>(SB), Y4
	VPAND 0(SI), Y4, Y0
	VPAND 32(SI), Y4, Y1
	VPAND 64(SI), Y4, Y2
	VPAND 96(SI), Y4, Y3
	VPMAXUD Y1, Y0, Y0
	VPMAXUD Y3, Y2, Y2
	VPMAXUD Y2, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPMAXUD X1, X0, X0
	VPSHUFD $0x4e, X0, X1
	VPMAXUD X1, X0, X0
	VPSHUFD $0xb1, X0, X1
	VPMAXUD X1, X0, X0
	VMOVD X0, AX
	MOVL AX, ret+8(FP)
	VZEROUPPER
	RET

// func quantiseAVX2(codes *[32]int8, x *[32]float32, scale float32)
TEXT ·quantiseAVX2(SB), NOSPLIT, $0-20
	MOVQ codes+0(FP), DI
	MOVQ x+8(FP), SI
	VBROADCASTSS scale+16(FP), Y4
	VBROADCASTSS most<>(SB), Y5
	VBROADCASTSS least<>(SB), Y6
	VMOVUPS 0(SI), Y0
	VMOVUPS 32(SI), Y1
	VMOVUPS 64(SI), Y2
	VMOVUPS 96(SI), Y3
	VDIVPS Y4, Y0, Y0
	VDIVPS Y4, Y1, Y1
	VDIVPS Y4, Y2, Y2
	VDIVPS Y4, Y3, Y3
	VMINPS Y5, Y0, Y0
	VMINPS Y5, Y1, Y1
	VMINPS Y5, Y2, Y2
	VMINPS Y5, Y3, Y3
	VMAXPS Y6, Y0, Y0
	VMAXPS Y6, Y1, Y1
	VMAXPS Y6, Y2, Y2
	VMAXPS Y6, Y3, Y3
	VCVTPS2DQ Y0, Y0
	VCVTPS2DQ Y1, Y1
	VCVTPS2DQ Y2, Y2
	VCVTPS2DQ Y3, Y3
	VPACKSSDW Y1, Y0, Y0
	VPACKSSDW Y3, Y2, Y2
	VPACKSSWB Y2, Y0, Y0
	VMOVDQU packed<>(SB), Y1
	VPERMD Y0, Y1, Y0
	VMOVDQU Y0, (DI)
	VZEROUPPER
	RET
