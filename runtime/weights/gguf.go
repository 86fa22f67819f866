package weights

import "fmt"

// GGUF is a GGUF file of version 2 or 3, little-endian, memory-mapped. It is
// safe for concurrent use until it is closed.
type GGUF struct {
	file     *mapping
	metadata Metadata
	tensors  table
}

var _ Source = (*GGUF)(nil)

// OpenGGUF maps the GGUF file at path and reads its header. Nothing of the
// tensors' data is touched. Every tensor is checked to lie inside the file, to
// overlap no other, and to have a type that Dequantize knows.
func OpenGGUF(path string) (*GGUF, error) {
	file, err := openMapping(path)
	if err != nil {
		return nil, err
	}
	md, tensors, err := parseGGUF(file.data)
	if err != nil {
		return nil, closeOnError(file, fmt.Errorf("%s: %w", path, err))
	}
	return &GGUF{file: file, metadata: md, tensors: tensors}, nil
}

// Metadata returns the key-value section. It is shared, must not be written to,
// and stays valid after Close.
func (g *GGUF) Metadata() Metadata { return g.metadata }

// Tensor implements Source.
func (g *GGUF) Tensor(name string) (Tensor, bool) { return g.tensors.get(name) }

// Names implements Source.
func (g *GGUF) Names() []string { return g.tensors.names() }

// Close implements Source. It may be called more than once.
func (g *GGUF) Close() error { return g.file.Close() }
