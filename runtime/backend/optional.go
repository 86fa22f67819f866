package backend

import "time"

// WeightGenerator is what a Backend may implement that computes the elements of
// generated tensors itself (see weights.Generated), so that their bytes need not be
// made in the host's memory.
type WeightGenerator interface {
	GeneratesWeights() bool
}

// WeightReader is what a Device may implement that knows how many bytes of weights a
// decode step of that many sequences reads, as they lie in its memory: everything
// once, and a row of the token embedding for each sequence.
type WeightReader interface {
	WeightBytes(sequences int) int64
}

// BandwidthMeter is what a Device may implement that can measure the bound of every
// decode step: how fast its memory is read, from end to end and nothing else. It
// takes memory for that and gives it back. Like Step, it is not for concurrent use.
type BandwidthMeter interface {
	// ReadBandwidth returns bytes a second.
	ReadBandwidth() (float64, error)
}

// Warmer is what a Device may implement that has something to prepare, once it has its
// pool, so that no step is slower for being the first of its kind. No step is under way.
type Warmer interface{ Warm() error }

// RowMultiple is what a Device may implement whose steps cost the same for some numbers
// of rows (new tokens): what those are best a multiple of.
type RowMultiple interface{ RowMultiple() int }

// RowCosts is what a Device may implement that has measured, in Warm, steps of
// RowMultiple() rows, of twice as many, and so on, without anything that their tokens
// see.
type RowCosts interface{ RowCosts() []time.Duration }

// MemoryMeter is what a Device may implement that has memory of its own: the bytes of it
// that nobody uses. It is for a device without a step under way.
type MemoryMeter interface{ FreeMemory() int64 }
