#include "textflag.h"

DATA ·magnitude<>+0(SB)/4, $0x7fffffff
GLOBL ·magnitude<>(SB), RODATA|NOPTR, $4
DATA ·tiny<>+0(SB)/4, $0x0d800000 // 2^-100, tinyScale
GLOBL ·tiny<>(SB), RODATA|NOPTR, $4
DATA ·top<>+0(SB)/4, $0x42fe0000 // 127
GLOBL ·top<>(SB), RODATA|NOPTR, $4
DATA ·ones8<>+0(SB)/4, $0x01010101
GLOBL ·ones8<>(SB), RODATA|NOPTR, $4
DATA ·ones16q<>+0(SB)/4, $0x00010001
GLOBL ·ones16q<>(SB), RODATA|NOPTR, $4

// VPACKSSDW and VPACKSSWB work within 128-bit lanes: this puts the groups of
// four codes back in order.
DATA ·unpack<>+0(SB)/4, $0
DATA ·unpack<>+4(SB)/4, $4
DATA ·unpack<>+8(SB)/4, $1
DATA ·unpack<>+12(SB)/4, $5
DATA ·unpack<>+16(SB)/4, $2
DATA ·unpack<>+20(SB)/4, $6
DATA ·unpack<>+24(SB)/4, $3
DATA ·unpack<>+28(SB)/4, $7
GLOBL ·unpack<>(SB), RODATA|NOPTR, $32

// func quantizeAVX2(q *xblock, x *float32, blocks int)
TEXT ·quantizeAVX2(SB), NOSPLIT, $0-24
	MOVQ         q+0(FP), DI
	MOVQ         x+8(FP), SI
	MOVQ         blocks+16(FP), CX
	VPBROADCASTD ·magnitude<>(SB), Y15
	VPBROADCASTD ·ones8<>(SB), Y14
	VPBROADCASTD ·ones16q<>(SB), Y13
	VMOVDQU      ·unpack<>(SB), Y12
	VMOVSS       ·top<>(SB), X11
	VMOVSS       ·tiny<>(SB), X10

block:
	VMOVUPS (SI), Y0
	VMOVUPS 32(SI), Y1
	VMOVUPS 64(SI), Y2
	VMOVUPS 96(SI), Y3

	// The largest magnitude: as integers, bit patterns order like magnitudes,
	// and a NaN is above them all.
	VPAND        Y15, Y0, Y4
	VPAND        Y15, Y1, Y5
	VPAND        Y15, Y2, Y6
	VPAND        Y15, Y3, Y7
	VPMAXSD      Y4, Y5, Y4
	VPMAXSD      Y6, Y7, Y6
	VPMAXSD      Y4, Y6, Y4
	VEXTRACTI128 $1, Y4, X5
	VPMAXSD      X4, X5, X4
	VPSHUFD      $0x4e, X4, X5
	VPMAXSD      X4, X5, X4
	VPSHUFD      $0xb1, X4, X5
	VPMAXSD      X4, X5, X4

	// Y6: all ones unless the magnitude is below tiny (predicate NLT).
	VCMPSS $5, X10, X4, X6
	VANDPS X6, X4, X4
	VDIVSS X11, X4, X5     // scale
	VMOVSS X5, 32(DI)
	VDIVSS X4, X11, X4     // inverse
	VANDPS X6, X4, X4
	VBROADCASTSS X4, Y4

	VMULPS    Y4, Y0, Y0
	VMULPS    Y4, Y1, Y1
	VMULPS    Y4, Y2, Y2
	VMULPS    Y4, Y3, Y3
	VCVTPS2DQ Y0, Y0
	VCVTPS2DQ Y1, Y1
	VCVTPS2DQ Y2, Y2
	VCVTPS2DQ Y3, Y3
	VPACKSSDW Y1, Y0, Y0
	VPACKSSDW Y3, Y2, Y2
	VPACKSSWB Y2, Y0, Y0
	VPERMD    Y0, Y12, Y0
	VMOVDQU   Y0, (DI)

	// Sums of 16 codes in each 128-bit lane.
	VPMADDUBSW   Y0, Y14, Y1
	VPMADDWD     Y13, Y1, Y1
	VPSHUFD      $0x4e, Y1, Y2
	VPADDD       Y2, Y1, Y1
	VPSHUFD      $0xb1, Y1, Y2
	VPADDD       Y2, Y1, Y1
	VEXTRACTI128 $1, Y1, X2
	VPADDD       X2, X1, X3
	VCVTDQ2PS    X3, X3
	VMOVSS       X3, 36(DI)
	VPSLLD       $16, X2, X2
	VPBLENDW     $0xaa, X2, X1, X1
	VMOVD        X1, 40(DI)

	ADDQ $128, SI
	ADDQ $44, DI
	DECQ CX
	JNE  block
	VZEROUPPER
	RET
