// Package cuda computes on an NVIDIA GPU: weights and activations in bfloat16,
// the residual stream and all sums in float32, a KV cache in bfloat16, dense
// products by cuBLASLt and everything else by the kernels of package cudakernels.
//
// The backend itself is behind the build tag cuda, because the binding to the
// driver ends the process when there is none.
//
// # A step
//
// What a step needs from the host is one copy: a header, the sequences, and the
// rows (new tokens) with the decoding sequences first. Page tables live on the
// device and change by deltas; spans are computed there from the rules of the
// plans. A step is a graph, recorded once for its shape (rows and logits in buckets
// of 1, 2, 4, ...) and replayed; the rows between the step and its bucket are
// computed and never looked at. The host waits once, for the sampled tokens.
//
// # Exactness
//
// The order of a sum depends on how a product and a run of pages are cut, and so
// on the bucket and on the other sequences of the batch. Answers are the same
// within rounding whatever the chunks, the batch and the pages are, not bit by
// bit.
package cuda
