package weightstest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/moaserve/moaserve/runtime/weights"
)

// The numbers that GGUF gives to value types and ggml to storage types.
const (
	ggufUint32 = 4 + iota
	ggufInt32
	ggufFloat32
	ggufBool
	ggufString
	ggufArray
	ggufUint64
	ggufInt64
	ggufFloat64
)

var ggmlNumbers = map[weights.Type]uint32{
	weights.F32: 0, weights.F16: 1, weights.Q4_0: 2, weights.Q4_1: 3, weights.Q5_0: 6, weights.Q5_1: 7,
	weights.Q8_0: 8, weights.Q4_K: 12, weights.Q5_K: 13, weights.Q6_K: 14, weights.BF16: 30,
}

// alignment of the tensors' data, GGUF's default.
const alignment = 32

// WriteGGUF writes a GGUF file of version 3. Keys come in sorted order, except
// that general.architecture is first; numbers take 32 bits where that loses
// nothing, as converters write them.
func WriteGGUF(w io.Writer, md weights.Metadata, tensors []weights.Tensor) error {
	b := &ggufBuffer{}
	b.WriteString("GGUF")
	b.uint32(3)
	b.uint64(uint64(len(tensors)))
	b.uint64(uint64(len(md)))
	keys := slices.Sorted(maps.Keys(md))
	if i := slices.Index(keys, "general.architecture"); i > 0 {
		keys = slices.Insert(slices.Delete(keys, i, i+1), 0, "general.architecture")
	}
	for _, key := range keys {
		b.string(key)
		if err := b.value(md[key]); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	offset := 0
	for _, t := range tensors {
		number, ok := ggmlNumbers[t.Type]
		if !ok {
			return fmt.Errorf("tensor %q: no number for type %v", t.Name, t.Type)
		}
		b.string(t.Name)
		b.uint32(uint32(len(t.Shape)))
		for _, d := range slices.Backward(t.Shape) {
			b.uint64(uint64(d))
		}
		b.uint32(number)
		b.uint64(uint64(offset))
		offset = aligned(offset + len(t.Data))
	}
	b.pad()
	for _, t := range tensors {
		b.Write(t.Data)
		b.pad()
	}
	_, err := w.Write(b.Bytes())
	return err
}

func aligned(n int) int { return (n + alignment - 1) / alignment * alignment }

type ggufBuffer struct{ bytes.Buffer }

func (b *ggufBuffer) uint32(v uint32) { b.Write(binary.LittleEndian.AppendUint32(nil, v)) }
func (b *ggufBuffer) uint64(v uint64) { b.Write(binary.LittleEndian.AppendUint64(nil, v)) }

func (b *ggufBuffer) string(s string) {
	b.uint64(uint64(len(s)))
	b.WriteString(s)
}

func (b *ggufBuffer) pad() { b.Write(make([]byte, aligned(b.Len())-b.Len())) }

// value writes a value's type and the value.
func (b *ggufBuffer) value(v any) error {
	switch v := v.(type) {
	case bool:
		b.uint32(ggufBool)
		b.bools([]bool{v})
	case string:
		b.uint32(ggufString)
		b.string(v)
	case int64:
		b.uint32(intType([]int64{v}))
		b.ints([]int64{v})
	case uint64:
		b.uint32(uintType([]uint64{v}))
		b.uints([]uint64{v})
	case float64:
		b.uint32(floatType([]float64{v}))
		b.floats([]float64{v})
	case []bool:
		b.array(ggufBool, len(v))
		b.bools(v)
	case []string:
		b.array(ggufString, len(v))
		for _, s := range v {
			b.string(s)
		}
	case []int64:
		b.array(intType(v), len(v))
		b.ints(v)
	case []uint64:
		b.array(uintType(v), len(v))
		b.uints(v)
	case []float64:
		b.array(floatType(v), len(v))
		b.floats(v)
	default:
		return fmt.Errorf("no metadata is of Go type %T", v)
	}
	return nil
}

func (b *ggufBuffer) array(kind uint32, n int) {
	b.uint32(ggufArray)
	b.uint32(kind)
	b.uint64(uint64(n))
}

func (b *ggufBuffer) bools(v []bool) {
	for _, x := range v {
		if x {
			b.WriteByte(1)
		} else {
			b.WriteByte(0)
		}
	}
}

func (b *ggufBuffer) ints(v []int64) {
	narrow := intType(v) == ggufInt32
	for _, x := range v {
		b.number(uint64(x), narrow)
	}
}

func (b *ggufBuffer) uints(v []uint64) {
	narrow := uintType(v) == ggufUint32
	for _, x := range v {
		b.number(x, narrow)
	}
}

func (b *ggufBuffer) floats(v []float64) {
	narrow := floatType(v) == ggufFloat32
	for _, x := range v {
		if narrow {
			b.uint32(math.Float32bits(float32(x)))
		} else {
			b.uint64(math.Float64bits(x))
		}
	}
}

func (b *ggufBuffer) number(v uint64, narrow bool) {
	if narrow {
		b.uint32(uint32(v))
	} else {
		b.uint64(v)
	}
}

func intType(v []int64) uint32 {
	for _, x := range v {
		if int64(int32(x)) != x {
			return ggufInt64
		}
	}
	return ggufInt32
}

func uintType(v []uint64) uint32 {
	for _, x := range v {
		if uint64(uint32(x)) != x {
			return ggufUint64
		}
	}
	return ggufUint32
}

func floatType(v []float64) uint32 {
	for _, x := range v {
		if float64(float32(x)) != x { // also true for NaN, which 64 bits keep whole
			return ggufFloat64
		}
	}
	return ggufFloat32
}
