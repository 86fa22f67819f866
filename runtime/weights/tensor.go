// Package weights reads model files: GGUF and safetensors, memory-mapped. It
// knows names, shapes, types and bytes; what the tensors mean is package model's
// business. Every file is hostile until proven otherwise: a damaged one gives an
// error that names file, tensor and offset.
package weights

// Type is the storage type of a tensor's elements.
type Type uint8

// The storage types that are read. Quantised types are those of ggml.
const (
	F32 Type = iota + 1
	F16
	BF16
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q8_0
	Q4_K
	Q5_K
	Q6_K
)

// Tensor is a view of one tensor in a mapped file, or one that is computed. Data is valid until the
// Source is closed and must not be written to.
type Tensor struct {
	Name string
	Type Type
	// Shape has the outermost dimension first: a projection is [out, in], and
	// each of its rows of in elements is contiguous.
	Shape []int
	Data  []byte
	// Generated, when not nil, says that the elements are computed: Type is BF16, and
	// Data is nil unless the Source was asked for the bytes.
	Generated *Generated
}

// Source is a set of named tensors, read from one file or from the shards of a
// folder. Sources are safe for concurrent reads.
type Source interface {
	// Tensor returns the tensor of that name; false when there is none.
	Tensor(name string) (Tensor, bool)
	// Names lists all tensors in file order.
	Names() []string
	// Close unmaps the files. No Tensor may be used afterwards.
	Close() error
}
