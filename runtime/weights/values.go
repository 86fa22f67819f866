package weights

import "fmt"

// Elems returns the number of elements: the product of the shape.
func (t Tensor) Elems() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Bytes returns the size of the tensor as it is stored, or would be.
func (t Tensor) Bytes() int { return t.Type.RowBytes(t.Elems()) }

// Float32s decodes the whole tensor into a new slice: for norms, biases and
// tests. Projections stay as they are stored.
func (t Tensor) Float32s() ([]float32, error) {
	out := make([]float32, t.Elems())
	if err := Dequantize(out, t.Type, t.Data); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return out, nil
}
