package sample

// A device may choose tokens by itself. It needs the parameters, the number of
// Uniform, the adjustments and the mask, and the sampler is told by Accept. A
// device that works ahead chooses a token while the sampler has not been told the
// one before: then pending is 1, and the device counts that token itself, as
// generated once more than the adjustments say. Else pending is 0.

// Uniform returns the number in [0, 1) that decides the next draw.
func (s *Sampler) Uniform(pending int) float64 { return uniform(s.params.Seed, uint64(s.n+pending)) }

// Penalties returns the parameters of the penalties, and whether any is on: only
// then tokens are counted.
func (s *Sampler) Penalties() (p Penalties, on bool) {
	return s.adjustments.penalties, s.adjustments.penalties.on()
}

// Adjustments returns how many adjustments the next logits get.
func (s *Sampler) Adjustments(pending int) int {
	if a := &s.adjustments; a.penalties.on() || len(s.params.LogitBias) > 0 || s.holds(pending) {
		return len(a.list)
	}
	return 0
}

// CopyAdjustments fills dst with as many adjustments, of distinct tokens. A token
// may be outside the vocabulary.
func (s *Sampler) CopyAdjustments(dst []Adjustment, pending int) {
	copy(dst, s.adjustments.list)
	if s.holds(pending) {
		for _, i := range s.adjustments.stops {
			dst[i].Count = Held
		}
	}
}

// Accept takes a token that was chosen elsewhere: it counts as one that Sample
// picked.
func (s *Sampler) Accept(id int32) {
	s.adjustments.add(id)
	s.n++
}
