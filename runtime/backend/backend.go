// Package backend is the seam between the scheduler and the device that
// computes: the interfaces that the engine drives and the batch it hands over.
// runtime/backend/backendtest holds the conformance suite that every
// implementation passes.
package backend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/weights"
)

// ErrNotSupported is what errors.Is finds in a backend's refusal of a model, a
// type or an option that it cannot run.
var ErrNotSupported = errors.New("not supported by this backend")

// ErrDeviceLost is what errors.Is finds in the errors of a Device that is beyond use:
// a kernel faulted or the hardware failed, every further step will fail, and only a
// new process helps.
var ErrDeviceLost = errors.New("the device is lost")

// KVType is the element type of the KV cache.
type KVType uint8

// The element types of KV pages.
const (
	KVF16 KVType = iota
	KVBF16
	// KVQ8_0 is ggml's Q8_0: a code of 8 bits for each value and a scale in f16
	// for every 32 of them, 34/64 of f16. Head dimensions must be multiples of 32.
	KVQ8_0
	// KVFP8 is e4m3, an 8-bit float with 3 bits of mantissa, with a scale for the keys
	// and one for the values of a page: a little over half of f16. CUDA only.
	KVFP8
)

// String names the type as flags do.
func (t KVType) String() string {
	if names := [...]string{"f16", "bf16", "q8_0", "fp8"}; int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("KVType(%d)", uint8(t))
}

// WeightType is the form in which a backend keeps the projections.
type WeightType uint8

// The forms of weights. The token embedding and the output projection stay as they
// are, norms in float32.
const (
	// WeightsAuto leaves it to the backend: as they are stored on the CPU, bfloat16
	// on a GPU.
	WeightsAuto WeightType = iota
	WeightsBF16
	// WeightsFP8 is e4m3, 8 bits, with a scale for each output channel: half the
	// memory and the traffic of bfloat16, at a relative error of 0.026.
	WeightsFP8
)

// Precision is the precision of activations that are quantised for products with
// quantised weights.
type Precision uint8

// The precisions. Int8 is what llama.cpp and others use; its noise flips the
// greedy choice at a few of a hundred positions of a small model. Int16 is as good
// as float32 for that purpose, at up to twice the arithmetic.
// With fp8 weights on a GPU, 8 bits are e4m3, with a scale a token, and 16 are bfloat16.
const (
	Int8 Precision = iota
	Int16
)

// Options say how a model is loaded.
type Options struct {
	// Threads is the number of CPU threads to compute with; 0 means one a core.
	Threads int
	// KV is the element type of the cache.
	KV KVType
	// Weights is the form of the projections. ErrNotSupported answers one that the
	// backend does not have.
	Weights WeightType
	// Activations is the precision at which a backend that computes with
	// quantised weights takes their inputs.
	Activations Precision
	// MaxBatchTokens bounds the new tokens of one Step, MaxSequences its
	// sequences and the slots in use. Both size buffers that live as long as the
	// Device.
	MaxBatchTokens int
	MaxSequences   int
	// MaxContext bounds the positions of tokens, for backends whose tables have a
	// size of their own; 0 means the model's context.
	MaxContext int
	// Progress, when not nil, is told the share of the weights loaded so far.
	Progress func(done, total int64)
}

// Backend loads models onto devices.
type Backend interface {
	// Name is "cpu" or "cuda".
	Name() string
	// Load uploads or repacks the weights. The Source may be closed once the
	// returned Device is closed, not before: a backend may compute from the
	// mapping itself.
	Load(ctx context.Context, m *model.Model, src weights.Source, o Options) (Device, error)
}

// Device is a loaded model. Only the engine's goroutine calls its methods.
type Device interface {
	// Describe names the device and its instruction set or architecture, for the
	// log line at the start.
	Describe() string
	// PageBytes is the size of one KV page: the keys and values of one block of
	// one KV head of one layer.
	PageBytes() int
	// NewPool allocates the KV pages. A Device has at most one pool at a time.
	NewPool(pages int) (Pool, error)
	// Step computes one batch: it appends the keys and values of all new tokens
	// to their pages and answers the rows of the batch. The batch may be reused
	// once Step returns; the Result is valid until the next Step. An error means
	// that none of the batch's rows has a usable answer.
	Step(b *Batch) (*Result, error)
	Close() error
}

// Ahead is what a Device may implement so that the host prepares a step while the
// device computes the one before. Only the engine's goroutine calls it. At most two
// steps are under way; Step must not be called while one is.
type Ahead interface {
	Device
	// Begin starts a step and does not wait for it. The batch belongs to the device
	// until End has answered it.
	//
	// It reports whether the step's choices stay on the device. Then, before End has
	// answered, one more step may begin, and its Tokens may name them by [ChoiceOf].
	// Otherwise End must come first. An error means that the step did not begin.
	Begin(b *Batch) (onDevice bool, err error)
	// End waits for the oldest step under way and answers it, as Step does.
	End() (*Result, error)
}

// ChoiceOf stands in Batch.Tokens for the token that row r of the step before
// chooses, while that one is under way.
func ChoiceOf(r int) int32 { return int32(-1 - r) }

// Pool is the KV memory of a Device: pages 0 to Pages()-1.
type Pool interface {
	Pages() int
	Close() error
}

// PageIO is what a Pool may implement so that pages outlive the process: it
// copies them out of the device and back. Only the engine's goroutine calls it,
// between Steps.
type PageIO interface {
	// Format names everything besides the model and the tokens that the bytes of
	// a page depend on: the device's layout of a page and what its arithmetic
	// rounds. Pages of equal formats are interchangeable, bit by bit.
	Format() string
	// ReadPage copies a page to dst, WritePage copies src to a page. Both slices
	// have Device.PageBytes bytes; another length and a page outside of the pool
	// are errors. After WritePage the page is what the one was that ReadPage
	// read, wherever that was.
	ReadPage(page int32, dst []byte) error
	WritePage(page int32, src []byte) error
}

// Batch is one step's work: a ragged list of sequences, laid out flat.
type Batch struct {
	// Tokens holds the new tokens of all sequences, one after the other. See
	// [ChoiceOf] for those that are not known yet.
	Tokens []int32
	Seqs   []Seq
	// Deltas are the page-table entries that changed since the previous Step, in
	// order. The device applies them before it computes. An entry stays until it
	// is overwritten; the engine guarantees that every block visible to a query
	// of this batch has been entered for its slot.
	Deltas []TableDelta
	// Rows are the tokens whose logits are wanted.
	Rows []Row
}

// Seq is one sequence's part of a batch.
type Seq struct {
	// Slot numbers the sequence's page table on the device, 0 <= Slot <
	// Options.MaxSequences.
	Slot int
	// Offset and Len delimit the sequence's new tokens in Batch.Tokens: one when
	// it decodes, a chunk of the prompt when it prefills.
	Offset, Len int
	// Start is the absolute position of the first new token.
	Start int
	// Layout says which blocks each head sees.
	Layout *plan.Layout
}

// TableDelta enters one page into a slot's table: from now on, block Block of
// head Head (layer*KVHeads + kvHead) of the sequence in Slot lives in Page.
type TableDelta struct {
	Slot, Head, Block, Page int32
}

// Row asks for the logits of one new token.
type Row struct {
	// Seq indexes Batch.Seqs; Token counts from that sequence's first new token.
	Seq, Token int
	// Sampler picks the next token; nil when only the logits are wanted.
	Sampler *sample.Sampler
	// Mask, when not nil, has a bit for each token that may be sampled.
	Mask []uint32
	// KeepLogits asks for a copy of the raw logits in the Result.
	KeepLogits bool
}

// Result answers a batch. The slices are parallel to Batch.Rows; Logits[i] is
// nil unless Rows[i].KeepLogits.
type Result struct {
	Choices []sample.Choice
	Logits  [][]float32
	// Busy is how long the device worked at the step, where it can tell.
	Busy time.Duration
}
