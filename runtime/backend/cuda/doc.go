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
// plans. Steps of a shape share a graph; rows and logits are rounded up to powers of two,
// beyond 64 to multiples of 64, and what is between a step and its bucket is computed and
// never looked at. The host waits once, for the sampled tokens, and may
// begin the next step before it does: two inputs and two outputs take turns.
//
// The first step of a shape is launched kernel by kernel, while cuBLASLt's algorithms
// compete; the second is recorded, and the later ones are replayed. Warm does both ahead
// for the shapes that servers run in. Steps that read more than 1024 rows of prompts are
// never recorded: the device hides their launches.
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
