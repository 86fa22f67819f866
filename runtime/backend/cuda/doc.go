// Package cuda computes on an NVIDIA GPU: weights in bfloat16 or e4m3, activations in
// bfloat16 (or, for products of many rows with e4m3 weights, in e4m3, too), the residual
// stream and all sums in float32, a KV cache in bfloat16 or e4m3. Products of more than
// a few rows are cuBLASLt's, everything else the kernels of package cudakernels.
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
// computed and never looked at. The host waits once, for the sampled tokens, and may
// begin the next step before it does: two inputs and two outputs take turns.
//
// The first step of a shape lets cuBLASLt's algorithms compete and records the graph.
// Warm does so ahead for the shapes that servers run in.
//
// # Tokens
//
// The device chooses all tokens, as a sample.Sampler does and by the same numbers.
// What changes logits before, one entry a token that is biased, penalised or held
// back, and masks are copied with the step that needs them. While a step is under way
// the next one may begin: the kernel then counts the token for the penalties that the
// sampler has not been told. The host looks at logits that are to be kept, and samples
// a row itself only when the adjustments of a step are more than there is room for.
//
// # Exactness
//
// The order of a sum depends on how a product and a run of pages are cut, and so
// on the bucket and on the other sequences of the batch. Answers are the same
// within rounding whatever the chunks, the batch and the pages are, not bit by
// bit.
package cuda
