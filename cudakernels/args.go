package cudakernels

import (
	"strconv"
	"unsafe"
)

// Device is what the launch shapes depend on.
type Device struct {
	Major, Minor   int // compute capability
	SMs            int // multiprocessors
	SharedPerSM    int // bytes of shared memory of a multiprocessor
	SharedPerBlock int // bytes that a thread block may opt in to
}

// hopper says whether the code for compute capability 9.0a runs on the device.
func (d Device) hopper() bool { return d.Major == 9 && d.Minor == 0 }

// Programmatic says whether kernels may be launched before their predecessors
// end. Drivers refuse the attribute for the code that other devices run.
func (d Device) Programmatic() bool { return d.hopper() }

// Shape is a launch: blocks, threads a block, bytes of dynamic shared memory.
type Shape struct {
	GridX, GridY, GridZ uint32
	Threads             uint32
	Shared              uint32
}

// Args is the argument struct of a kernel.
type Args interface {
	// Kernel is the name of the function in its module.
	Kernel() string
	// Shape is how to launch it.
	Shape(Device) Shape
}

// Pointers returns the addresses of the parameters of a kernel, in order. They
// are valid as long as args is.
func Pointers[T any](args *T) []unsafe.Pointer {
	p := make([]unsafe.Pointer, unsafe.Sizeof(*args)/8)
	for i := range p {
		p[i] = unsafe.Add(unsafe.Pointer(args), 8*i)
	}
	return p
}

// The argument structs.
var (
	_ Args = (*ScatterPages)(nil)
	_ Args = (*DecodePlan)(nil)
	_ Args = (*DecodeAttention)(nil)
	_ Args = (*PrefillPlan)(nil)
	_ Args = (*PrefillAttention)(nil)
	_ Args = (*Embed)(nil)
	_ Args = (*RMSNorm)(nil)
	_ Args = (*RopeAppend)(nil)
	_ Args = (*SiluMul)(nil)
	_ Args = (*Sample)(nil)
)

// ScatterPages applies a step's deltas to the page tables. The deltas of a step
// must name an entry at most once.
type ScatterPages struct {
	Header Ptr // Header
	Deltas Ptr // TableDelta [Header.Deltas]
	Table  Ptr // int32 [slots][Heads][MaxBlocks]

	Heads     int64 // layers * KV heads
	MaxBlocks int64
}

// Kernel implements [Args].
func (*ScatterPages) Kernel() string { return "scatter_pages" }

// Shape implements [Args].
func (*ScatterPages) Shape(d Device) Shape { return grid(d.SMs, 256, 0) }

// DecodePlan cuts the pages that the decoding sequences see, layer by layer,
// into equal runs, one a thread block of [DecodeAttention]. It computes the spans
// from the rules. One launch serves all layers; it must follow every change of
// the header or the sequences.
type DecodePlan struct {
	Header Ptr // Header
	Seqs   Ptr // Seq [Header.Seqs]
	Rules  Ptr // Rule [plans][layers][KVHeads]
	Plan   Ptr // out: PlanStride bytes a layer

	PlanStride int64 // DecodePlanBytes
	Layers     int64
	KVHeads    int64
	Group      int64 // query heads a KV head, 1 to 8
	Blocks     int64 // thread blocks of the attention: DecodeBlocks
	HeadDim    int64
}

// Kernel implements [Args].
func (*DecodePlan) Kernel() string { return "decode_plan" }

// Shape implements [Args].
func (a *DecodePlan) Shape(Device) Shape { return grid(int(a.Layers), 1024, 0) }

// DecodeAttention computes one layer's attention of the decoding sequences. All
// query heads of a KV head share one read of its pages, in runs that all thread
// blocks have equally much of; heads that are cut between thread blocks are
// merged by log-sum-exp.
//
// The merge waits for other thread blocks, so all of the grid must be resident:
// nothing else that could keep them out may run beside it without end.
type DecodeAttention struct {
	Pool  Ptr // pages
	Plan  Ptr // of this layer
	Table Ptr // int32 [slots][Heads][MaxBlocks]
	Q     Ptr // bfloat16 [Header.Decodes][KVHeads*Group][StoredHeadDim]
	Out   Ptr // out: bfloat16 [rows][KVHeads*Group*HeadDim]
	// Workspace holds the parts of cut heads. A launch finds it filled with 0xff
	// bytes and leaves it dirty; it fills Clear, the workspace of the launch
	// before (the previous step's last layer for layer 0), with 0xff. So two
	// workspaces in turn do, and with an odd number of layers the last layer takes
	// a third.
	Workspace, Clear Ptr

	Layer     int64
	KVHeads   int64
	Heads     int64 // layers * KV heads
	MaxBlocks int64
	Group     int64
	HeadDim   int64
	Stages    int64   // tiles of the ring in shared memory: DecodeStages
	Scale     float64 // of the scores: 1/sqrt(HeadDim)
}

// Kernel implements [Args].
func (a *DecodeAttention) Kernel() string { return withStored("decode_attention_", a.HeadDim) }

// Shape implements [Args].
func (a *DecodeAttention) Shape(d Device) Shape { return decodeShape(d, PagesBF16, int(a.HeadDim)) }

// PrefillPlan lists, layer by layer, the work items of the prefilling sequences,
// in the order in which [PrefillAttention] takes them. Where they are too few to keep
// all multiprocessors busy (a short chunk of a long prompt), it cuts their lists of
// pages into parts. One launch serves all layers.
type PrefillPlan struct {
	Header Ptr // Header
	Seqs   Ptr // Seq [Header.Seqs]
	Rules  Ptr // Rule [plans][layers][KVHeads]
	Plan   Ptr // out: PlanStride bytes a layer

	PlanStride int64 // PrefillPlanBytes
	MaxItems   int64 // MaxPrefillItems
	Layers     int64
	KVHeads    int64
	Group      int64
	HeadDim    int64
	SMs        int64 // multiprocessors, at least 1
}

// Kernel implements [Args].
func (*PrefillPlan) Kernel() string { return "prefill_plan" }

// Shape implements [Args].
func (a *PrefillPlan) Shape(Device) Shape { return grid(int(a.Layers), 1024, prefillPlanShared) }

// PrefillAttention computes one layer's attention of the prefilling sequences:
// every query sees, causally, block 0 and the blocks of its span. The keys and
// values of the new tokens must be in their pages. The parts of an item that is cut are
// merged by log-sum-exp, in their order: results do not depend on which ends first.
type PrefillAttention struct {
	Pool      Ptr // pages
	Plan      Ptr // of this layer
	Table     Ptr // int32 [slots][Heads][MaxBlocks]
	Q         Ptr // query tiles
	Out       Ptr // out: bfloat16 [rows][KVHeads*Group*HeadDim]
	Workspace Ptr // PrefillWorkspaceBytes, zeroed once

	MaxItems   int64 // MaxPrefillItems
	MaxBlocks  int64
	QueryHeads int64 // KVHeads*Group
	HeadDim    int64
	Scale      float64
}

// Kernel implements [Args].
func (a *PrefillAttention) Kernel() string { return withStored("prefill_attention_", a.HeadDim) }

// Shape implements [Args].
func (a *PrefillAttention) Shape(d Device) Shape { return prefillShape(d, PagesBF16, int(a.HeadDim)) }

// Embed gathers the embeddings of the tokens. A token below zero, -1-r, stands for
// what row r of the step before chose, and is replaced by it.
type Embed struct {
	Tokens  Ptr // in, out: int32 [Rows]
	Choices Ptr // int32, of the step before
	Table   Ptr // bfloat16 [Vocab][Hidden]
	X       Ptr // out: float32 [Rows][Hidden]

	Rows   int64
	Hidden int64 // a multiple of 8
	Vocab  int64 // tokens outside are taken as 0
}

// Kernel implements [Args].
func (*Embed) Kernel() string { return "embed" }

// Shape implements [Args].
func (a *Embed) Shape(Device) Shape { return grid(int(a.Rows), 128, 0) }

// RMSNorm adds Delta to the residual stream and normalises it:
// X += Delta; Y = X / sqrt(mean(X^2) + Eps) * Weight. With Index it does so for
// the rows that Index names, packs them in Y, and leaves X as it was.
type RMSNorm struct {
	X      Ptr // in, out: float32 [rows][Hidden]
	Delta  Ptr // bfloat16 [rows][Hidden]; 0 for none
	Weight Ptr // float32 [Hidden]
	Y      Ptr // out: bfloat16 [Rows][Hidden]
	Index  Ptr // int32 [Rows]; 0 for all rows in order

	Rows   int64
	Hidden int64 // a multiple of 8, at most 16384
	Eps    float64
}

// Kernel implements [Args].
func (*RMSNorm) Kernel() string { return "rmsnorm" }

// Shape implements [Args].
func (a *RMSNorm) Shape(Device) Shape { return grid(int(a.Rows), normThreads(int(a.Hidden)), 0) }

// RopeAppend takes the rows of the fused query, key and value product, adds the
// bias, normalises queries and keys a head (Qwen3), rotates them, writes the
// queries to where the attention reads them and appends keys and values to their
// pages.
type RopeAppend struct {
	QKV   Ptr // bfloat16 [Rows][(QueryHeads + 2*KVHeads) * HeadDim]: queries, keys, values
	Bias  Ptr // float32 [(QueryHeads + 2*KVHeads) * HeadDim]; 0 for none
	QNorm Ptr // float32 [HeadDim]; 0 for none
	KNorm Ptr // float32 [HeadDim]; 0 for none
	// Angles holds the cosine and the sine of every rotated pair at every
	// position, times Rope.Scale: float32 [positions][Pairs][2].
	Angles Ptr
	Meta   Ptr // Row [Rows]
	Seqs   Ptr // Seq [Header.Seqs]
	Table  Ptr // int32 [slots][Heads][MaxBlocks]
	Pool   Ptr // in, out: pages
	Q      Ptr // out: bfloat16 [decodes][QueryHeads][StoredHeadDim]
	QTiles Ptr // out: query tiles

	Rows        int64
	QueryHeads  int64
	KVHeads     int64
	HeadDim     int64
	Pairs       int64 // rotated pairs of a head, at most HeadDim/2
	Interleaved int64 // 1 for pairs (2i, 2i+1), 0 for (i, i+Pairs)
	Layer       int64
	Heads       int64 // layers * KV heads
	MaxBlocks   int64
	Eps         float64 // of QNorm and KNorm
}

// Kernel implements [Args].
func (*RopeAppend) Kernel() string { return "rope_append" }

// Shape implements [Args].
func (a *RopeAppend) Shape(Device) Shape {
	return a.shape(a.headsAWarp())
}

func (a *RopeAppend) shape(headsAWarp int64) Shape {
	s := grid(int(a.Rows), 32*ropeWarps, 0)
	s.GridY = uint32((a.QueryHeads + 2*a.KVHeads + ropeWarps*headsAWarp - 1) / (ropeWarps * headsAWarp))
	return s
}

// headsAWarp returns how many heads of a row a warp takes: inHalves of rope.cu decides.
func (a *RopeAppend) headsAWarp() int64 {
	if a.Interleaved == 0 && 2*a.Pairs == a.HeadDim && int64(StoredHeadDim(int(a.HeadDim))) == a.HeadDim {
		return 32 / (a.HeadDim / 16)
	}
	return 1
}

// SiluMul computes the gated activation: silu(gate) * up.
type SiluMul struct {
	GateUp Ptr // bfloat16 [Rows][2*FFN]: gate, up
	Y      Ptr // out: bfloat16 [Rows][FFN]

	Rows int64
	FFN  int64 // a multiple of 8
}

// Kernel implements [Args].
func (*SiluMul) Kernel() string { return "silu_mul" }

// Shape implements [Args].
func (a *SiluMul) Shape(Device) Shape {
	s := grid((int(a.FFN)/8+255)/256, 256, 0)
	s.GridY = uint32(a.Rows)
	return s
}

// Sample chooses the token of every row as a sample.Sampler does: logit biases,
// penalties, the mask and tokens held back; then the likeliest token (temperature
// below 1e-5), or temperature, min_p, top_k, top_p, and a draw in the order of ids.
// Log-probabilities are those of the logits as they came, and at the end of the
// launch the logits are again what they were.
type Sample struct {
	Logits  Ptr // in, out: float32 [Rows][Vocab]
	Params  Ptr // SampleRow [Rows]
	Tokens  Ptr // out: int32 [Rows]
	Choices Ptr // out: Choice [Rows]

	Rows  int64
	Vocab int64
}

// Kernel implements [Args].
func (*Sample) Kernel() string { return "sample" }

// Shape implements [Args].
func (a *Sample) Shape(Device) Shape { return grid(int(a.Rows), 1024, 0) }

func grid(blocks, threads, shared int) Shape {
	return Shape{GridX: uint32(max(blocks, 1)), GridY: 1, GridZ: 1, Threads: uint32(threads), Shared: uint32(shared)}
}

func withStored(name string, headDim int64) string {
	return name + strconv.Itoa(StoredHeadDim(int(headDim)))
}
