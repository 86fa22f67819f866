package backendtest

import (
	"math"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Options say what the backend under test can do and what it promises. The zero
// value asks for everything.
type Options struct {
	// KV are the element types of the cache to test; f16 and bf16 when empty. The
	// first is that of all cases that are not about the type.
	KV []backend.KVType
	// Types are the weight types to test; all that are read when empty.
	Types []weights.Type
	// HeadDim is the head dimension of the tests' models; 64 when 0.
	HeadDim int
	// Load is handed to Backend.Load, apart from the fields that tests set: the
	// cache's type and the size of a batch.
	Load backend.Options
	// Rounds says that a token's bits may depend on the batch that it is computed
	// in. Logits are then compared within the tolerance of Precision instead of
	// bit by bit.
	Rounds bool
	// Precision returns the root mean square error, relative to the activations',
	// with which activations enter a product with weights of that type; 0 for
	// float32. When nil, Int8Blocks or Int16Blocks is taken for quantised weights,
	// after Load.Activations, and 0 for others.
	Precision func(weights.Type) float64
}

// Int8Blocks is the relative error of activations that are rounded to 8 bits in
// blocks of 32: a step is 1/127 of the block's largest magnitude, and rounding is
// wrong by step/sqrt(12) on average. The largest of 32 is about 2.4 times the root
// mean square for normal values and 4 times for the product of two, which is what
// enters the last projection of a layer; the larger counts.
const Int8Blocks = 4.0 / 127 / 3.4641

// Int16Blocks is the same for 16 bits.
const Int16Blocks = Int8Blocks * 127 / 32767

// BF16Activations is the relative error of activations rounded to bfloat16, with
// 8 significant bits: at most 2^-9 of the magnitude, on average 1/sqrt(3) of that
// (rounded up).
const BF16Activations = 1.0 / 512 / 1.7

// E4M3 is the relative error of numbers rounded to 3 bits of mantissa: at most 2^-4 of
// the power of two below, on average 1/sqrt(3) of that and, over the mantissas from 1
// to 2, sqrt(3/(8 ln 2)) of that.
const E4M3 = 1.0 / 16 / 1.7320508 * 0.7356

// tolerance returns how far a row of logits may be from the reference's: the
// length of the difference over the length of the row, which averages over the
// vocabulary and so varies little.
//
// Errors enter independently, so their squares add up: those of the activations
// at 4 products in series a layer (to q, k and v; from attention; to gate and up;
// down) and one to the logits; those of the cache twice a layer. The reference
// rounds keys and values like the cache, but a number that arithmetic in float32
// moved over the middle between two neighbours is rounded to the other one; the
// bound allows that to happen to all of them. For q8_0 it does not round, and the
// bound is the rounding itself: that of Int8Blocks, and another 2^-11 at most for
// the rounding of scales, which codes make good for; for fp8 it is E4M3. The gated product doubles a relative
// error, and softmax multiplies that of a score by the score, which is about 1
// here: hence the factor 2. Sums in float32 are far below all that; 2^-16 stands
// for them where nothing else is rounded.
func (o Options) tolerance(kv backend.KVType, t weights.Type, layers int) float64 {
	rounding := math.Ldexp(1, -11) // half a unit in the last place of binary16
	switch kv {
	case backend.KVBF16:
		rounding = math.Ldexp(1, -8)
	case backend.KVQ8_0:
		rounding = Int8Blocks
	case backend.KVFP8:
		rounding = E4M3
	}
	n, activation := float64(layers), o.precision(t)
	return 2*math.Sqrt((4*n+1)*activation*activation+2*n*rounding*rounding) + math.Ldexp(1, -16)
}

func (o Options) precision(t weights.Type) float64 {
	switch {
	case o.Precision != nil:
		return o.Precision(t)
	case t.Float():
		return 0
	case o.Load.Activations == backend.Int16:
		return Int16Blocks
	}
	return Int8Blocks
}

// suite is the conformance suite of one backend.
type suite struct {
	backend backend.Backend
	o       Options
}

// testCase is one promise of package backend.
type testCase struct {
	name string
	run  func(t testing.TB)
}

// Run tests a backend: against the float64 reference within a tolerance derived
// from number formats, and against itself, bit by bit unless Options.Rounds,
// under all the freedom that the engine has: chunks, batches, pages, slots.
func Run(t *testing.T, b backend.Backend, o Options) {
	t.Helper()
	for _, c := range newSuite(b, o).cases() {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

func newSuite(b backend.Backend, o Options) *suite {
	if len(o.KV) == 0 {
		o.KV = []backend.KVType{backend.KVF16, backend.KVBF16}
	}
	if len(o.Types) == 0 {
		o.Types = weights.Types()
	}
	if o.HeadDim == 0 {
		o.HeadDim = 64
	}
	return &suite{backend: b, o: o}
}

// cases lists the suite.
func (s *suite) cases() []testCase {
	var all []testCase
	for _, part := range [][]testCase{
		s.referenceCases(), s.invarianceCases(), s.pageCases(), s.pageIOCases(), s.answerCases(), s.aheadCases(), s.lifecycleCases(),
	} {
		all = append(all, part...)
	}
	return all
}
