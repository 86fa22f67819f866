package weights

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Bounds of a GGUF header. Everything in it is also bounded by the file's own
// size: a count is believed only as far as the bytes behind it could hold.
const (
	// maxGGUFHeader bounds key-values and tensor infos together. The largest
	// vocabularies in use (262144 tokens with merges) take about 16 MB.
	maxGGUFHeader = 64 << 20
	// maxGGUFName is the longest key of the specification.
	maxGGUFName = 1<<16 - 1
	// maxGGUFDims is ggml's GGML_MAX_DIMS.
	maxGGUFDims = 4
	// maxGGUFAlignment is far above any alignment in use (32), and keeps the
	// arithmetic on offsets small.
	maxGGUFAlignment = 1 << 20

	defaultGGUFAlignment = 32
)

// ggmlTypes are ggml's numbers of the types that are read.
var ggmlTypes = map[uint32]Type{
	0: F32, 1: F16, 2: Q4_0, 3: Q4_1, 6: Q5_0, 7: Q5_1, 8: Q8_0, 12: Q4_K, 13: Q5_K, 14: Q6_K, 30: BF16,
}

// otherGGMLTypes names the types that are not read, for error messages.
var otherGGMLTypes = map[uint32]string{
	9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
	20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
	29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}

// The value types of GGUF's key-value section.
const (
	ggufUint8 = iota
	ggufInt8
	ggufUint16
	ggufInt16
	ggufUint32
	ggufInt32
	ggufFloat32
	ggufBool
	ggufString
	ggufArray
	ggufUint64
	ggufInt64
	ggufFloat64
)

// ggufSizes are the sizes of the scalar value types, and the least size of a
// string.
var ggufSizes = [...]int{
	ggufUint8: 1, ggufInt8: 1, ggufUint16: 2, ggufInt16: 2, ggufUint32: 4, ggufInt32: 4, ggufFloat32: 4,
	ggufBool: 1, ggufString: 8, ggufArray: 12, ggufUint64: 8, ggufInt64: 8, ggufFloat64: 8,
}

// Least sizes of a key-value pair (key length, type, one byte) and of a tensor
// info (name length, dimensions, one dimension, type, offset).
const (
	minGGUFPair = 8 + 4 + 1
	minGGUFInfo = 8 + 4 + 8 + 4 + 8
)

// parseGGUF reads the header of a GGUF file. The tensors' Data are views of
// data; the metadata is copied.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
func parseGGUF(data []byte) (Metadata, table, error) {
	r := &ggufReader{data: data[:min(len(data), maxGGUFHeader)], capped: len(data) > maxGGUFHeader}
	nTensors, nPairs, err := r.preamble()
	if err != nil {
		return nil, table{}, err
	}
	md, err := r.pairs(nPairs)
	if err != nil {
		return nil, table{}, err
	}
	tensors, err := r.tensors(nTensors, md, data)
	return md, tensors, err
}

// ggufReader is a cursor over the header.
type ggufReader struct {
	data   []byte
	pos    int
	capped bool // the file goes on behind data
}

func (r *ggufReader) left() int { return len(r.data) - r.pos }

// take returns the next n bytes.
func (r *ggufReader) take(n int) ([]byte, error) {
	if n > r.left() {
		if r.capped {
			return nil, fmt.Errorf("offset %d: the header is larger than %d bytes", r.pos, maxGGUFHeader)
		}
		return nil, fmt.Errorf("offset %d: the file ends where %d bytes are wanted and %d are left", r.pos, n, r.left())
	}
	b := r.data[r.pos : r.pos+n]
	r.pos += n
	return b, nil
}

func (r *ggufReader) uint32() (uint32, error) {
	b, err := r.take(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (r *ggufReader) uint64() (uint64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// count reads a 64-bit count of things that take at least size bytes each.
func (r *ggufReader) count(what string, size int) (int, error) {
	at := r.pos
	n, err := r.uint64()
	if err != nil {
		return 0, err
	}
	if n > uint64(r.left()/size) {
		return 0, fmt.Errorf("offset %d: %d %s do not fit in the %d bytes behind", at, n, what, r.left())
	}
	return int(n), nil
}

func (r *ggufReader) string() (string, error) {
	n, err := r.count("bytes of a string", 1)
	if err != nil {
		return "", err
	}
	b, err := r.take(n)
	return string(b), err
}

func (r *ggufReader) name(what string) (string, error) {
	at := r.pos
	s, err := r.string()
	if err != nil {
		return "", err
	}
	if s == "" || len(s) > maxGGUFName {
		return "", fmt.Errorf("offset %d: the %s has %d bytes, not 1 to %d", at, what, len(s), maxGGUFName)
	}
	return s, nil
}

func (r *ggufReader) preamble() (tensors, pairs int, err error) {
	magic, err := r.take(4)
	if err != nil {
		return 0, 0, err
	}
	if string(magic) != "GGUF" {
		return 0, 0, fmt.Errorf("offset 0: not a GGUF file: it begins with %q", magic)
	}
	version, err := r.uint32()
	if err != nil {
		return 0, 0, err
	}
	switch {
	case version == 2 || version == 3:
	case version&0xffff == 0:
		return 0, 0, errors.New("offset 4: big-endian GGUF files are not read")
	default:
		return 0, 0, fmt.Errorf("offset 4: GGUF version %d is not read, only 2 and 3", version)
	}
	if tensors, err = r.count("tensors", minGGUFInfo); err != nil {
		return 0, 0, err
	}
	pairs, err = r.count("key-value pairs", minGGUFPair)
	return tensors, pairs, err
}

func (r *ggufReader) pairs(n int) (Metadata, error) {
	md := make(Metadata)
	for range n {
		at := r.pos
		key, err := r.name("key")
		if err != nil {
			return nil, err
		}
		if _, taken := md[key]; taken {
			return nil, fmt.Errorf("offset %d: key %q is there twice", at, key)
		}
		kind, err := r.uint32()
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
		if kind == ggufArray {
			md[key], err = r.array()
		} else {
			md[key], err = r.value(kind)
		}
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
	}
	return md, nil
}

// value reads one value that is not an array.
func (r *ggufReader) value(kind uint32) (any, error) {
	switch kind {
	case ggufString:
		return r.string()
	case ggufArray:
		return nil, fmt.Errorf("offset %d: an array of arrays", r.pos)
	}
	if kind >= uint32(len(ggufSizes)) {
		return nil, fmt.Errorf("offset %d: unknown value type %d", r.pos-4, kind)
	}
	b, err := r.take(ggufSizes[kind])
	if err != nil {
		return nil, err
	}
	switch kind {
	case ggufBool:
		return b[0] != 0, nil
	case ggufFloat32, ggufFloat64:
		return ggufFloat(kind, b), nil
	case ggufInt8, ggufInt16, ggufInt32, ggufInt64:
		return int64(ggufInteger(kind, b)), nil
	}
	return ggufInteger(kind, b), nil
}

// array reads the elements' type, their number and the elements.
func (r *ggufReader) array() (any, error) {
	kind, err := r.uint32()
	if err != nil {
		return nil, err
	}
	if kind >= uint32(len(ggufSizes)) {
		return nil, fmt.Errorf("offset %d: unknown element type %d", r.pos-4, kind)
	}
	if kind == ggufArray {
		return nil, fmt.Errorf("offset %d: an array of arrays", r.pos-4)
	}
	size := ggufSizes[kind]
	n, err := r.count("array elements", size)
	if err != nil {
		return nil, err
	}
	if kind == ggufString {
		out := make([]string, n)
		for i := range out {
			if out[i], err = r.string(); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return out, nil
	}
	b, err := r.take(n * size)
	if err != nil {
		return nil, err
	}
	switch kind {
	case ggufBool:
		return elements(b, 1, func(e []byte) bool { return e[0] != 0 }), nil
	case ggufFloat32, ggufFloat64:
		return elements(b, size, func(e []byte) float64 { return ggufFloat(kind, e) }), nil
	case ggufInt8, ggufInt16, ggufInt32, ggufInt64:
		return elements(b, size, func(e []byte) int64 { return int64(ggufInteger(kind, e)) }), nil
	}
	return elements(b, size, func(e []byte) uint64 { return ggufInteger(kind, e) }), nil
}

func elements[T any](b []byte, size int, decode func([]byte) T) []T {
	out := make([]T, len(b)/size)
	for i := range out {
		out[i] = decode(b[i*size : (i+1)*size])
	}
	return out
}

// ggufInteger decodes an integer and extends its sign when it has one.
func ggufInteger(kind uint32, b []byte) uint64 {
	switch kind {
	case ggufUint8:
		return uint64(b[0])
	case ggufInt8:
		return uint64(int64(int8(b[0])))
	case ggufUint16:
		return uint64(binary.LittleEndian.Uint16(b))
	case ggufInt16:
		return uint64(int64(int16(binary.LittleEndian.Uint16(b))))
	case ggufUint32:
		return uint64(binary.LittleEndian.Uint32(b))
	case ggufInt32:
		return uint64(int64(int32(binary.LittleEndian.Uint32(b))))
	}
	return binary.LittleEndian.Uint64(b)
}

func ggufFloat(kind uint32, b []byte) float64 {
	if kind == ggufFloat32 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// ggufInfo is a tensor info whose data has not been found yet.
type ggufInfo struct {
	Tensor
	offset uint64 // from the beginning of the data section
	size   int
}

// tensors reads the tensor infos and finds their data in file.
func (r *ggufReader) tensors(n int, md Metadata, file []byte) (table, error) {
	alignment, err := ggufAlignment(md)
	if err != nil {
		return table{}, err
	}
	infos := make([]ggufInfo, n)
	for i := range infos {
		if infos[i], err = r.info(); err != nil {
			return table{}, err
		}
	}
	start := (r.pos + alignment - 1) / alignment * alignment
	var t table
	for _, x := range infos {
		if x.offset%uint64(alignment) != 0 {
			return table{}, fmt.Errorf("tensor %q: offset %d is not a multiple of the alignment %d", x.Name, x.offset, alignment)
		}
		if room := len(file) - start; room < x.size || x.offset > uint64(room-x.size) {
			return table{}, fmt.Errorf("tensor %q: %d bytes at offset %d+%d go beyond the file's %d bytes",
				x.Name, x.size, start, x.offset, len(file))
		}
		from := start + int(x.offset)
		x.Data = file[from : from+x.size : from+x.size]
		if !t.add(x.Tensor) {
			return table{}, fmt.Errorf("tensor %q is there twice", x.Name)
		}
	}
	slices.SortStableFunc(infos, func(a, b ggufInfo) int { return cmp.Compare(a.offset, b.offset) })
	for i := 1; i < len(infos); i++ {
		a, b := infos[i-1], infos[i]
		if a.offset+uint64(a.size) > b.offset {
			return table{}, fmt.Errorf("tensor %q at offset %d+%d overlaps tensor %q", b.Name, start, b.offset, a.Name)
		}
	}
	return t, nil
}

func ggufAlignment(md Metadata) (int, error) {
	if _, ok := md["general.alignment"]; !ok {
		return defaultGGUFAlignment, nil
	}
	a, ok := md.Int("general.alignment")
	if !ok || a <= 0 || a > maxGGUFAlignment || a&(a-1) != 0 {
		return 0, fmt.Errorf("key %q: %v is not a power of two up to %d",
			"general.alignment", md["general.alignment"], maxGGUFAlignment)
	}
	return a, nil
}

func (r *ggufReader) info() (ggufInfo, error) {
	var x ggufInfo
	at := r.pos
	name, err := r.name("tensor name")
	if err != nil {
		return x, err
	}
	fail := func(err error) (ggufInfo, error) {
		return ggufInfo{}, fmt.Errorf("tensor %q (info at offset %d): %w", name, at, err)
	}
	dims, err := r.uint32()
	if err != nil {
		return fail(err)
	}
	if dims < 1 || dims > maxGGUFDims {
		return fail(fmt.Errorf("%d dimensions, not 1 to %d", dims, maxGGUFDims))
	}
	x.Name, x.Shape = name, make([]int, dims)
	for i := range x.Shape {
		d, err := r.uint64()
		if err != nil {
			return fail(err)
		}
		if d < 1 || d > math.MaxInt {
			return fail(fmt.Errorf("a dimension is %d", d))
		}
		// ggml writes the contiguous dimension first.
		x.Shape[len(x.Shape)-1-i] = int(d)
	}
	number, err := r.uint32()
	if err != nil {
		return fail(err)
	}
	var ok bool
	if x.Type, ok = ggmlTypes[number]; !ok {
		if other, ok := otherGGMLTypes[number]; ok {
			return fail(fmt.Errorf("storage type %s is not read", other))
		}
		return fail(fmt.Errorf("unknown storage type %d", number))
	}
	if x.size, err = x.Type.tensorBytes(x.Shape); err != nil {
		return fail(err)
	}
	if x.offset, err = r.uint64(); err != nil {
		return fail(err)
	}
	return x, nil
}
