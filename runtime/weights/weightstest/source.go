// Package weightstest makes weights for tests: reference quantisers, sources in
// memory, and writers of small GGUF and safetensors files.
package weightstest

import "github.com/moaserve/moaserve/runtime/weights"

// Source is a set of tensors in memory.
type Source struct {
	tensors []weights.Tensor
}

var _ weights.Source = (*Source)(nil)

// NewSource returns a source of the given tensors, which it keeps. Of two with
// the same name the first is found.
func NewSource(tensors ...weights.Tensor) *Source { return &Source{tensors: tensors} }

// Tensor implements weights.Source.
func (s *Source) Tensor(name string) (weights.Tensor, bool) {
	for _, t := range s.tensors {
		if t.Name == name {
			return t, true
		}
	}
	return weights.Tensor{}, false
}

// Names implements weights.Source.
func (s *Source) Names() []string {
	names := make([]string, len(s.tensors))
	for i, t := range s.tensors {
		names[i] = t.Name
	}
	return names
}

// Tensors returns the tensors themselves, in order.
func (s *Source) Tensors() []weights.Tensor { return s.tensors }

// Close implements weights.Source and does nothing.
func (s *Source) Close() error { return nil }
