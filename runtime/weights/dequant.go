package weights

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Dequantize decodes len(dst) consecutive elements of type t from src, which
// must be exactly their t.RowBytes(len(dst)) bytes. The arithmetic is float32 in
// the order of ggml's reference code, so the results are the same bits.
func Dequantize(dst []float32, t Type, src []byte) error {
	l := t.layout()
	if l.elems == 0 {
		return fmt.Errorf("dequantise: %v is not a storage type", t)
	}
	if len(dst)%l.elems != 0 {
		return fmt.Errorf("dequantise: %d elements do not divide into %v blocks of %d", len(dst), t, l.elems)
	}
	if want := t.RowBytes(len(dst)); len(src) != want {
		return fmt.Errorf("dequantise: %d elements of %v take %d bytes, not %d", len(dst), t, want, len(src))
	}
	switch t {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = f16At(src, 2*i)
		}
	case BF16:
		for i := range dst {
			dst[i] = BF16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	default:
		block := blockDecoders[t]
		for len(dst) > 0 {
			block(dst[:l.elems], src[:l.bytes])
			dst, src = dst[l.elems:], src[l.bytes:]
		}
	}
	return nil
}

// blockDecoders decode one block each.
var blockDecoders = [...]func(dst []float32, src []byte){
	Q4_0: decodeQ4_0,
	Q4_1: decodeQ4_1,
	Q5_0: decodeQ5_0,
	Q5_1: decodeQ5_1,
	Q8_0: decodeQ8_0,
	Q4_K: decodeQ4_K,
	Q5_K: decodeQ5_K,
	Q6_K: decodeQ6_K,
}

func f16At(b []byte, i int) float32 { return F16ToFloat32(binary.LittleEndian.Uint16(b[i:])) }

// The 32-element types keep element i in the low half of byte i and element
// i+16 in its high half; a fifth bit, where there is one, is bit i of qh.

func decodeQ4_0(dst []float32, src []byte) {
	d, qs := f16At(src, 0), src[2:]
	for i := range legacyBlock / 2 {
		dst[i] = d * float32(int(qs[i]&15)-8)
		dst[i+16] = d * float32(int(qs[i]>>4)-8)
	}
}

func decodeQ4_1(dst []float32, src []byte) {
	d, m, qs := f16At(src, 0), f16At(src, 2), src[4:]
	for i := range legacyBlock / 2 {
		dst[i] = float32(d*float32(qs[i]&15)) + m
		dst[i+16] = float32(d*float32(qs[i]>>4)) + m
	}
}

func decodeQ5_0(dst []float32, src []byte) {
	d, qh, qs := f16At(src, 0), binary.LittleEndian.Uint32(src[2:]), src[6:]
	for i := range legacyBlock / 2 {
		dst[i] = d * float32(int(qs[i]&15)|int(qh>>i&1)<<4-16)
		dst[i+16] = d * float32(int(qs[i]>>4)|int(qh>>(i+16)&1)<<4-16)
	}
}

func decodeQ5_1(dst []float32, src []byte) {
	d, m, qh, qs := f16At(src, 0), f16At(src, 2), binary.LittleEndian.Uint32(src[4:]), src[8:]
	for i := range legacyBlock / 2 {
		dst[i] = float32(d*float32(uint32(qs[i]&15)|qh>>i&1<<4)) + m
		dst[i+16] = float32(d*float32(uint32(qs[i]>>4)|qh>>(i+16)&1<<4)) + m
	}
}

func decodeQ8_0(dst []float32, src []byte) {
	d, qs := f16At(src, 0), src[2:]
	for i := range legacyBlock {
		dst[i] = d * float32(int8(qs[i]))
	}
}
