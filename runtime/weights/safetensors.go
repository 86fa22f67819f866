package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// Safetensors is one memory-mapped safetensors file. It is safe for concurrent
// use until it is closed.
type Safetensors struct {
	file    *mapping
	tensors table
}

var _ Source = (*Safetensors)(nil)

// OpenSafetensors maps the safetensors file at path and reads its header. Every
// tensor is F32, F16 or BF16; together they cover the data without overlaps or
// holes, as the format demands.
func OpenSafetensors(path string) (*Safetensors, error) {
	file, err := openMapping(path)
	if err != nil {
		return nil, err
	}
	tensors, err := parseSafetensors(file.data)
	if err != nil {
		return nil, closeOnError(file, fmt.Errorf("%s: %w", path, err))
	}
	return &Safetensors{file: file, tensors: tensors}, nil
}

// Tensor implements Source. The Data need not be aligned to its elements.
func (s *Safetensors) Tensor(name string) (Tensor, bool) { return s.tensors.get(name) }

// Names implements Source.
func (s *Safetensors) Names() []string { return s.tensors.names() }

// Close implements Source. It may be called more than once.
func (s *Safetensors) Close() error { return s.file.Close() }

// Bounds of a safetensors header.
const (
	// maxSafetensorsHeader is the reference implementation's bound.
	maxSafetensorsHeader = 100_000_000
	// maxSafetensorsDims is more than any tensor of the family has.
	maxSafetensorsDims = 8
)

var safetensorsTypes = map[string]Type{"F32": F32, "F16": F16, "BF16": BF16}

// safetensorsEntry is one tensor of a header, as JSON.
type safetensorsEntry struct {
	Type    string   `json:"dtype"`
	Shape   []uint64 `json:"shape"`
	Offsets []uint64 `json:"data_offsets"`
}

// extent is where a tensor's data lies in the data section.
type extent struct {
	Tensor
	from, to int
}

// parseSafetensors reads the header of a safetensors file: its length in eight
// bytes, a JSON object, then the data. The tensors' Data are views of file.
//
// Format: https://github.com/huggingface/safetensors#format
func parseSafetensors(file []byte) (table, error) {
	if len(file) < 8 {
		return table{}, fmt.Errorf("offset 0: %d bytes are too few for a safetensors file", len(file))
	}
	size := binary.LittleEndian.Uint64(file)
	if size > maxSafetensorsHeader {
		return table{}, fmt.Errorf("offset 0: the header has %d bytes, more than %d", size, maxSafetensorsHeader)
	}
	if size > uint64(len(file)-8) {
		return table{}, fmt.Errorf("offset 0: the header has %d bytes, but only %d are left", size, len(file)-8)
	}
	header, data := file[8:8+size], file[8+size:]
	extents, err := parseSafetensorsHeader(header, len(data))
	if err != nil {
		return table{}, err
	}
	slices.SortStableFunc(extents, func(a, b extent) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	var t table
	end, last := 0, "the header"
	for _, x := range extents {
		switch {
		case x.from < end:
			return table{}, fmt.Errorf("tensor %q at offset %d overlaps tensor %q, which ends at %d", x.Name, x.from, last, end)
		case x.from > end:
			return table{}, fmt.Errorf("tensor %q at offset %d: %d bytes between it and %q belong to nothing",
				x.Name, x.from, x.from-end, last)
		}
		x.Data = data[x.from:x.to:x.to]
		end, last = x.to, x.Name
		if !t.add(x.Tensor) {
			return table{}, fmt.Errorf("tensor %q is there twice", x.Name)
		}
	}
	if end != len(data) {
		return table{}, fmt.Errorf("offset %d: %d bytes behind tensor %q belong to nothing", end, len(data)-end, last)
	}
	return t, nil
}

// parseSafetensorsHeader decodes the JSON object key by key, so that names that
// are there twice are not lost.
func parseSafetensorsHeader(header []byte, dataSize int) ([]extent, error) {
	dec := json.NewDecoder(bytes.NewReader(header))
	fail := func(err error) ([]extent, error) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("header, offset %d: %w", 8+dec.InputOffset(), err)
	}
	if open, err := dec.Token(); err != nil {
		return fail(err)
	} else if open != json.Delim('{') {
		return fail(errors.New("not a JSON object"))
	}
	var extents []extent
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return fail(err)
		}
		name, ok := key.(string)
		if !ok {
			return fail(fmt.Errorf("key %v is not a string", key))
		}
		if name == "__metadata__" {
			var ignored map[string]string
			if err := dec.Decode(&ignored); err != nil {
				return fail(fmt.Errorf("__metadata__: %w", err))
			}
			continue
		}
		var entry safetensorsEntry
		if err := dec.Decode(&entry); err != nil {
			return fail(fmt.Errorf("tensor %q: %w", name, err))
		}
		x, err := entry.extent(name, dataSize)
		if err != nil {
			return fail(fmt.Errorf("tensor %q: %w", name, err))
		}
		extents = append(extents, x)
	}
	if _, err := dec.Token(); err != nil {
		return fail(err)
	}
	if rest := bytes.TrimSpace(header[dec.InputOffset():]); len(rest) > 0 {
		return fail(errors.New("more follows the JSON object"))
	}
	return extents, nil
}

func (e *safetensorsEntry) extent(name string, dataSize int) (extent, error) {
	t, ok := safetensorsTypes[e.Type]
	if !ok {
		return extent{}, fmt.Errorf("storage type %q is not read", e.Type)
	}
	if len(e.Shape) > maxSafetensorsDims {
		return extent{}, fmt.Errorf("%d dimensions, more than %d", len(e.Shape), maxSafetensorsDims)
	}
	x := extent{Tensor: Tensor{Name: name, Type: t, Shape: make([]int, len(e.Shape))}}
	for i, d := range e.Shape {
		if d > math.MaxInt {
			return extent{}, fmt.Errorf("a dimension is %d", d)
		}
		x.Shape[i] = int(d)
	}
	size, err := t.tensorBytes(x.Shape)
	if err != nil {
		return extent{}, err
	}
	if len(e.Offsets) != 2 {
		return extent{}, fmt.Errorf("data_offsets has %d numbers, not 2", len(e.Offsets))
	}
	from, to := e.Offsets[0], e.Offsets[1]
	if from > to || to > uint64(dataSize) {
		return extent{}, fmt.Errorf("data_offsets %v are not inside the %d bytes of data", e.Offsets, dataSize)
	}
	if to-from != uint64(size) {
		return extent{}, fmt.Errorf("shape %v of %v takes %d bytes, data_offsets %v hold %d", x.Shape, t, size, e.Offsets, to-from)
	}
	x.from, x.to = int(from), int(to)
	return x, nil
}
