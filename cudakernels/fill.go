package cudakernels

// The argument structs.
var (
	_ Args = (*FillRandom)(nil)
	_ Args = (*ReadMemory)(nil)
)

// FillRandom makes the elements of a tensor that is generated: the same bits as
// weights.Generated in package runtime/weights gives.
type FillRandom struct {
	Out Ptr // out: bfloat16 [Elements], element First of the tensor first

	First    int64 // a multiple of 8
	Elements int64 // a multiple of 8
	Key      uint64
	Scale    float64 // of a float32
}

// Kernel implements [Args].
func (*FillRandom) Kernel() string { return "fill_random" }

// Shape implements [Args].
func (*FillRandom) Shape(d Device) Shape { return grid(8*d.SMs, 256, 0) }

// ReadMemory reads memory from end to end, as fast as it can be read: the bound of
// everything that a decode step does.
type ReadMemory struct {
	Data Ptr // Bytes bytes, aligned to 16

	Bytes int64 // a multiple of 16
	Sums  Ptr   // in, out: uint32 [ReadSums], which the words are added to by exclusive or
}

const (
	// ReadSums is the number of sums of [ReadMemory].
	ReadSums = 1024
	// readTile is what one of its thread blocks reads.
	readTile    = readThreads * 8 * 16
	readThreads = 512
)

// Kernel implements [Args].
func (*ReadMemory) Kernel() string { return "read_memory" }

// Shape implements [Args].
func (a *ReadMemory) Shape(Device) Shape {
	return grid(int((a.Bytes+readTile-1)/readTile), readThreads, 0)
}
