// Package cudakernels holds the CUDA kernels of the runtime: their sources
// (*.cu), the compiled fatbins, and Go types that mirror what the kernels read.
// It is pure Go: the fatbins are embedded, and nothing here calls a driver.
//
// # Launching
//
// Every parameter of every kernel is 8 bytes wide: a device address, an int64
// or a float64. Each kernel has an argument struct (see [Args]) whose fields are
// its parameters in order. So a launch may pass pointers to the fields (see
// [Pointers]) or the struct's bytes as one packed buffer. The struct also gives
// the name of the kernel and, for a [Device], its grid, block and dynamic shared
// memory ([Shape]). A kernel whose shape asks for more than 48 KiB needs
// CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES raised to it first.
//
// What changes from step to step (how many sequences, their positions, their
// pages) is read from device memory, so a captured graph stays valid while its
// buckets fit: the arguments are addresses and bounds.
//
// All kernels begin with griddepcontrol.launch_dependents and wait with
// griddepcontrol.wait before they touch what another kernel of the step writes
// (compute capability 9.0; elsewhere both are nothing). There they may therefore be
// launched with CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION (see
// [Device.Programmatic]), with one rule: [ScatterPages], [DecodePlan] and [PrefillPlan], and the first kernel
// after the last of them, must be launched without it. What those three write,
// and what the host copies before them, is read ahead of the wait.
//
// # Device memory
//
// Residual stream: float32 [rows][hidden]. Everything else that flows is
// bfloat16, row-major; norm weights and biases are float32.
//
// KV page ([PagesBF16]): the keys and values of one block (64 tokens) of one KV head of
// one layer, bfloat16, keys first. A head's dimensions are stored padded with zeros
// to [StoredHeadDim]. Element (token, d) of the keys is at byte
//
//	(d/64)*8192 + token*128 + ((d%64/8 ^ token%8) * 16) + d%8*2
//
// and of the values StoredHeadDim*128 bytes further: 64 dimensions wide columns
// of 128-byte rows in Hopper's 128-byte swizzle, so that a page is copied as it
// is to where the tensor cores want it. The pool is an array of pages; it must be
// zeroed once, because tokens past a sequence's end are multiplied by zero.
//
// With [PagesFP8] keys and values are e4m3 (an 8-bit float; largest value 448). Element
// (token, d) of the keys is at byte
//
//	token*StoredHeadDim + (d/16 ^ (token%2*4 + token/2%4)) % (StoredHeadDim/16) * 16 + d%8*2 + d/8%2
//
// and of the values StoredHeadDim*64 bytes further; then follow the scales, which codes
// are multiplied by, of the keys and of the values, float32, in 128 bytes. A scale is the
// power of two, from 2^-6 to 2^7, for which the largest magnitude of the block's first
// token becomes 2 to 4: the scale of a page never changes.
//
// Keys of e4m3 pages, and the queries for them, are multiplied by the Hadamard matrix of
// order StoredHeadDim over its square root: element (i, j) is positive where i and j have
// an even number of bits in common, and negative elsewhere. Scores are sums over all
// stored dimensions then, the padding included. The scale of keys is that of the first
// token's before it is rotated in either way.
//
// Page table: int32 [slots][heads][maxBlocks], heads = layers * KV heads,
// head = layer*kvHeads + kvHead. Entries change through [ScatterPages] alone.
//
// Step: a [Header], the sequences ([Seq], those that decode first), one [Row] a
// token and the deltas ([TableDelta]). Sequence i of the decoding ones owns row
// i. Rows past the step's own (a bucket's padding) have Seq -1.
//
// Queries: of decoding sequences bfloat16 [sequence][head][StoredHeadDim]; of
// prefilling ones tiles of 64 tokens aligned to blocks, [tile][head] in the
// layout of the keys of a bfloat16 page. A sequence has [Tiles] of them, from Seq.Tile
// on.
package cudakernels

//go:generate go run gen.go
