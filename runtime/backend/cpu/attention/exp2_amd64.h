// Broadcast constants, one vector each.
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

CONST(minusInf<>, 0xff800000)
CONST(lowest<>, 0xc2fe0000)    // -127: the exponent field of 2^-127 is 0, so that 2^x is 0
CONST(magic<>, 0x4b40007f)     // 1.5*2^23 + 127
CONST(exp2C1<>, 0x3f317215)    // minimax of (2^f-1)/f, |f| <= 1/2,
CONST(exp2C2<>, 0x3e75fcde)    // relative error of 2^f below 2^-23
CONST(exp2C3<>, 0x3d635ba9)
CONST(exp2C4<>, 0x3c1e7544)
CONST(exp2C5<>, 0x3aaddd0a)
CONST(one<>, 0x3f800000)

// EXP2 replaces x <= 0 by 2^x; below -126.5 by 0. Adding the magic number
// rounds x to an integer n and leaves n+127 in the low bits, from where a shift
// makes it the exponent of 2^n. NaN passes: VMAXPS returns its second source.
#define EXP2(x, n, p) \
	VMOVUPS lowest<>(SB), n; \
	VMAXPS x, n, x; \
	VADDPS magic<>(SB), x, n; \
	VSUBPS magic<>(SB), n, p; \
	VSUBPS p, x, x; \
	VMOVUPS exp2C5<>(SB), p; \
	VFMADD213PS exp2C4<>(SB), x, p; \
	VFMADD213PS exp2C3<>(SB), x, p; \
	VFMADD213PS exp2C2<>(SB), x, p; \
	VFMADD213PS exp2C1<>(SB), x, p; \
	VFMADD213PS one<>(SB), x, p; \
	VPSLLD $23, n, n; \
	VMULPS n, p, x

// EXP2Z is EXP2 on 512-bit registers.
#define EXP2Z(x, n, p) \
	VBROADCASTSS lowest<>(SB), n; \
	VMAXPS x, n, x; \
	VADDPS.BCST magic<>(SB), x, n; \
	VSUBPS.BCST magic<>(SB), n, p; \
	VSUBPS p, x, x; \
	VBROADCASTSS exp2C5<>(SB), p; \
	VFMADD213PS.BCST exp2C4<>(SB), x, p; \
	VFMADD213PS.BCST exp2C3<>(SB), x, p; \
	VFMADD213PS.BCST exp2C2<>(SB), x, p; \
	VFMADD213PS.BCST exp2C1<>(SB), x, p; \
	VFMADD213PS.BCST one<>(SB), x, p; \
	VPSLLD $23, n, n; \
	VMULPS n, p, x
