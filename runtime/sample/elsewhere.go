package sample

// Unadjusted reports whether the next token depends on the logits by temperature,
// min_p, top_k and top_p alone: no bias, no penalty, no stop token held back. A
// device may then sample by itself, with the number of Uniform, and tell by
// Accept.
func (s *Sampler) Unadjusted() bool {
	return len(s.bias) == 0 && s.tokens.index == nil && (s.n >= s.params.MinTokens || len(s.params.Stop) == 0)
}

// Uniform returns the number in [0, 1) that decides a draw: the next one, or the one
// so many tokens ahead.
func (s *Sampler) Uniform(ahead int) float64 { return uniform(s.params.Seed, uint64(s.n+ahead)) }

// Accept takes a token that was sampled elsewhere: it counts as one that Sample
// picked.
func (s *Sampler) Accept(id int32) {
	s.tokens.add(id)
	s.n++
}
