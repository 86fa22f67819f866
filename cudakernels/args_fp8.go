package cudakernels

var (
	_ Args = (*DecodeAttentionFP8)(nil)
	_ Args = (*PrefillAttentionFP8)(nil)
	_ Args = (*RopeAppendFP8)(nil)
)

// DecodeAttentionFP8 is [DecodeAttention] over e4m3 pages. Stages and the grid of the
// plan are those of [PagesFP8].
type DecodeAttentionFP8 struct{ DecodeAttention }

// Kernel implements [Args].
func (a *DecodeAttentionFP8) Kernel() string { return withStored("decode_attention_fp8_", a.HeadDim) }

// Shape implements [Args].
func (a *DecodeAttentionFP8) Shape(d Device) Shape { return decodeShape(d, PagesFP8, int(a.HeadDim)) }

// PrefillAttentionFP8 is [PrefillAttention] over e4m3 pages.
type PrefillAttentionFP8 struct{ PrefillAttention }

// Kernel implements [Args].
func (a *PrefillAttentionFP8) Kernel() string { return withStored("prefill_attention_fp8_", a.HeadDim) }

// Shape implements [Args].
func (a *PrefillAttentionFP8) Shape(d Device) Shape { return prefillShape(d, PagesFP8, int(a.HeadDim)) }

// RopeAppendFP8 is [RopeAppend] into e4m3 pages. It multiplies the rotated queries and
// keys, zero padding included, by the orthonormal Hadamard matrix of order StoredHeadDim,
// so that Q and QTiles belong to e4m3 pages alone. The first token of a block decides the
// scales of its pages, before both rotations.
type RopeAppendFP8 struct{ RopeAppend }

// Kernel implements [Args].
func (*RopeAppendFP8) Kernel() string { return "rope_append_fp8" }

// Shape implements [Args].
func (a *RopeAppendFP8) Shape(Device) Shape { return a.shape(1) }
