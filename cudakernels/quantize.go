package cudakernels

// The argument structs of quantised rows.
var (
	_ Args = (*QuantizeRows)(nil)
	_ Args = (*SplitRows)(nil)
	_ Args = (*SumSplit)(nil)
	_ Args = (*DequantizeRows)(nil)
)

// QuantizeRows turns each row into e4m3 codes, rounded to the nearest and to even,
// and the row's scale: the least power of two at which the largest magnitude of the
// row is at most 448. A value that is not a number stays one; an infinite one becomes
// the largest of its row.
type QuantizeRows struct {
	X      Ptr // bfloat16 [Rows][Cols]
	Codes  Ptr // out: e4m3 [Rows][Cols], a byte each
	Scales Ptr // out: float32 [Rows]

	Rows int64
	Cols int64 // a multiple of 8
}

// Kernel implements [Args].
func (*QuantizeRows) Kernel() string { return "quantize_rows" }

// Shape implements [Args].
func (a *QuantizeRows) Shape(Device) Shape { return quantizeShape(a.Rows, a.Cols) }

// quantizeShape gives a thread block a row, and a thread 8 of its elements at a time.
func quantizeShape(rows, cols int64) Shape {
	return grid(int(rows), min(max(roundUp(int(cols)/8, 32), 64), 512), 0)
}

// SplitRows turns each row into two rows of codes whose sum it is: its values rounded
// as by [QuantizeRows], and what that leaves, with a sixteenth of the scale. The sum is
// exact for values of at least 2^-6 of the scale; others lose up to 2^-14 of it. So a
// product of e4m3 matrices takes bfloat16 inputs as they are, as twice the rows.
type SplitRows struct {
	X      Ptr // bfloat16 [Rows][Cols]
	Codes  Ptr // out: e4m3 [2*Rows][Cols]: the rounded rows, then the rests
	Scales Ptr // out: float32 [2*Rows]

	Rows int64
	Cols int64 // a multiple of 8
}

// Kernel implements [Args].
func (*SplitRows) Kernel() string { return "split_rows" }

// Shape implements [Args].
func (a *SplitRows) Shape(Device) Shape { return quantizeShape(a.Rows, a.Cols) }

// SumSplit adds the product of the rests to the product of the rounded rows.
type SumSplit struct {
	Sums Ptr // float32 [2*Rows][Cols]
	Y    Ptr // out: bfloat16 [Rows][Cols]

	Rows int64
	Cols int64 // a multiple of 4
}

// Kernel implements [Args].
func (*SumSplit) Kernel() string { return "sum_split" }

// Shape implements [Args].
func (a *SumSplit) Shape(d Device) Shape {
	const threads, elements = 256, 4 // of a thread at a time
	blocks := (a.Rows*a.Cols/elements + threads - 1) / threads
	return grid(min(int(blocks), 8*d.SMs), threads, 0)
}

// DequantizeRows turns codes back into code * scale, which bfloat16 holds exactly
// (unless it is below 2^-126).
type DequantizeRows struct {
	Codes  Ptr // e4m3 [Rows][Cols]
	Scales Ptr // float32 [Rows]
	Y      Ptr // out: bfloat16 [Rows][Cols]

	Rows int64
	Cols int64 // a multiple of 8
}

// Kernel implements [Args].
func (*DequantizeRows) Kernel() string { return "dequantize_rows" }

// Shape implements [Args].
func (a *DequantizeRows) Shape(Device) Shape { return grid(int(a.Rows), 256, 0) }
