package sample

import (
	"math"
	"math/bits"
	"slices"
)

// greedyBelow is the temperature below which sampling is greedy (as in vLLM):
// smaller ones only round the other tokens' weights to zero.
const greedyBelow = 1e-5

// shortList is the largest top_k that is selected before any weight is computed.
const shortList = 256

// Sampler samples the tokens of one sequence. It owns the sequence's penalty
// counts and its random stream, which depends on Seed and on the number of
// tokens sampled so far and on nothing else: not on the batch, not on time.
//
// A Sampler belongs to one sequence; its methods must not run concurrently.
type Sampler struct {
	params      Params
	n           int // tokens accepted
	adjustments adjustments

	// Scratch, kept between tokens.
	raw  []float32 // [vocab], only with logprobs
	best []Logprob
	list []float32
}

// New returns the sampler of a sequence with that prompt. The prompt counts for
// the repetition penalty only; it is not retained.
func New(p Params, prompt []int32) *Sampler {
	return &Sampler{params: p, adjustments: newAdjustments(&p, prompt)}
}

// Params returns the parameters given to New.
func (s *Sampler) Params() Params { return s.params }

// Sample picks a token from logits [vocab] and accepts it: it is counted for
// the penalties and the random stream moves on. logits is scratch: it is
// overwritten. mask, when not nil, has a bit for each token (bit id%32 of word
// id/32); a token whose bit is 0 or missing is never picked.
//
// The steps are those of vLLM, in its order: logit_bias, the repetition,
// frequency and presence penalties, the mask and min_tokens; then either the
// likeliest token (temperature 0; the lowest id among equals) or temperature,
// min_p, top_k, top_p and a draw. min_p and top_p count the tokens that the steps
// before them left. Where top_k or top_p cut through tokens of equal weight, the
// lowest ids stay.
//
// A logit that is not a number counts as -Inf, and +Inf as the largest finite
// number. When that leaves no token, the answer is the lowest id that the mask
// allows, preferably one that min_tokens does not hold back; 0 when the mask
// allows none. Choice.Top belongs to the caller.
func (s *Sampler) Sample(logits []float32, mask []uint32) Choice {
	logprobs := s.params.Logprobs || s.params.TopLogprobs > 0
	if logprobs {
		s.raw = append(s.raw[:0], logits...)
	}
	s.adjust(logits, mask)
	var c Choice
	switch best, ok := argmax(logits); {
	case !ok:
		c.ID = s.fallback(len(logits), mask)
	case !(s.params.Temperature >= greedyBelow):
		c.ID = best
	default:
		c.ID = s.draw(logits, logits[best])
	}
	if logprobs {
		s.describe(&c)
	}
	s.Accept(c.ID)
	return c
}

// adjust applies everything that also changes the greedy answer.
func (s *Sampler) adjust(logits []float32, mask []uint32) {
	s.adjustments.apply(logits)
	if mask != nil {
		applyMask(logits, mask)
	}
	if s.holds(0) {
		for _, id := range s.params.Stop {
			if uint(id) < uint(len(logits)) {
				logits[id] = float32(math.Inf(-1))
			}
		}
	}
}

// holds reports whether stop tokens are held back when so many more tokens were
// generated.
func (s *Sampler) holds(more int) bool { return s.n+more < s.params.MinTokens }

func applyMask(logits []float32, mask []uint32) {
	never := float32(math.Inf(-1))
	for i, word := range mask[:min(len(mask), (len(logits)+31)/32)] {
		for banned := ^word; banned != 0; banned &= banned - 1 {
			if id := i*32 + bits.TrailingZeros32(banned); id < len(logits) {
				logits[id] = never
			}
		}
	}
	for id := len(mask) * 32; id < len(logits); id++ {
		logits[id] = never
	}
}

// argmax returns the lowest id with the largest logit; false when every logit is
// -Inf or not a number.
func argmax(logits []float32) (int32, bool) {
	best, id := float32(math.Inf(-1)), -1
	for i, x := range logits {
		if x > best {
			best, id = x, i
		}
	}
	return int32(id), id >= 0
}

// fallback picks a token when the logits name none.
func (s *Sampler) fallback(vocab int, mask []uint32) int32 {
	allowed := int32(-1)
	for id := range int32(vocab) {
		if mask != nil && (int(id/32) >= len(mask) || mask[id/32]>>(id%32)&1 == 0) {
			continue
		}
		if !s.holds(0) || !slices.Contains(s.params.Stop, id) {
			return id
		}
		if allowed < 0 {
			allowed = id
		}
	}
	return max(allowed, 0)
}

// draw samples from the adjusted logits, the largest of which is hi.
func (s *Sampler) draw(logits []float32, hi float32) int32 {
	p := &s.params
	w, short := logits, false
	if p.TopK > 0 && p.TopK <= shortList && p.TopK < len(logits) {
		short = true
		s.best = largest(s.best, logits, p.TopK)
		slices.SortFunc(s.best, func(a, b Logprob) int { return int(a.ID) - int(b.ID) })
		s.list = s.list[:0]
		for _, b := range s.best {
			s.list = append(s.list, b.Logprob)
		}
		w = s.list
	}
	total := weigh(w, hi, p.Temperature, p.MinP)
	if p.TopK > 0 && p.TopK < len(w) {
		truncate(w, float64(p.TopK), false)
		total = sum(w)
	}
	if p.TopP > 0 && p.TopP < 1 {
		truncate(w, float64(p.TopP)*total, true)
		total = sum(w)
	}
	i := pick(w, uniform(p.Seed, uint64(s.n))*total)
	if short {
		return s.best[i].ID
	}
	return int32(i)
}

// negligible is the exponent below which a weight is taken for 0. e^-87 is near
// the smallest normal float32 and 1e-38 of the largest weight.
const negligible = -87

// weigh replaces logits by weights e^((x-hi)/temperature) relative to that of hi,
// the largest, and returns their sum. Weights below minP become 0. What is not a
// number weighs nothing, +Inf as much as the largest finite number.
func weigh(x []float32, hi, temperature, minP float32) float64 {
	hi = min(hi, math.MaxFloat32)
	scale := 1 / min(temperature, math.MaxFloat32)
	minP = min(minP, 1) // the largest weight is 1 and stays
	total := 0.0
	for i, l := range x {
		d := (l - hi) * scale
		if d > 0 {
			d = 0
		}
		if !(d > negligible) {
			x[i] = 0
			continue
		}
		e := exp32(d)
		if e < minP {
			e = 0
		}
		x[i] = e
		total += float64(e)
	}
	return total
}

// sum adds weights in the order of pick, so that pick reaches its end exactly.
func sum(w []float32) float64 {
	total := 0.0
	for _, x := range w {
		total += float64(x)
	}
	return total
}

// pick returns the index at which the running sum of the weights passes target.
func pick(w []float32, target float64) int {
	last, acc := 0, 0.0
	for i, x := range w {
		if x == 0 {
			continue
		}
		last = i
		if acc += float64(x); acc > target {
			break
		}
	}
	return last
}

// uniform returns the n-th number of the stream of a seed, in [0, 1): SplitMix64
// (Steele, Lea and Flood, OOPSLA 2014) used as a function of a counter. The seed
// is mixed first, so that neighbouring seeds do not give shifted streams.
func uniform(seed, n uint64) float64 {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio, odd
	return float64(mix64(mix64(seed+golden)+(n+1)*golden)>>11) * 0x1p-53
}

// mix64 is the finaliser of SplitMix64.
func mix64(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
