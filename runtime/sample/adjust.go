package sample

// Adjustment is what a Sampler does to the logit of one token before it looks at
// any: it adds a bias, then applies the penalties for having occurred.
type Adjustment struct {
	ID int32
	// Count is how often the token was generated: 0 for a token of the prompt only,
	// Unseen for one that bears no penalty. Held goes before everything else.
	Count int32
	Bias  float32
}

// The values of Adjustment.Count that are no counts.
const (
	Unseen = -1
	// Held marks a token that may not be picked.
	Held = -2
)

// Penalties are the parameters of the penalties for having occurred.
type Penalties struct {
	Repetition          float32 // above 0; 1 is off
	Frequency, Presence float32
}

func (p *Params) penalties() Penalties {
	r := Penalties{p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty}
	if !(r.Repetition > 0) {
		r.Repetition = 1
	}
	return r
}

func (p Penalties) on() bool { return p != Penalties{Repetition: 1} }

// penalise applies the repetition penalty (Keskar et al. 2019, section 4.1, with
// the sign rule of Hugging Face and vLLM: positive logits are divided, others
// multiplied), then OpenAI's frequency and presence penalties. The product is
// rounded before the sum on every platform: devices do the same.
func (p Penalties) penalise(x float32, generated int32) float32 {
	if x > 0 {
		x /= p.Repetition
	} else {
		x *= p.Repetition
	}
	if generated > 0 {
		x -= float32(p.Frequency*float32(generated)) + p.Presence
	}
	return x
}

// adjustments are those of a sequence, of distinct tokens. min_tokens is not in
// them: stops are the entries of the tokens that it may hold back.
type adjustments struct {
	penalties Penalties
	index     map[int32]int // of a token in list
	list      []Adjustment
	stops     []int
}

// newAdjustments returns the adjustments at the end of the prompt.
func newAdjustments(p *Params, prompt []int32) adjustments {
	a := adjustments{penalties: p.penalties()}
	if a.penalties.Repetition != 1 {
		for _, id := range prompt {
			a.list[a.find(id)].Count = 0
		}
	}
	for id, by := range p.LogitBias {
		a.list[a.find(id)].Bias = by
	}
	if p.MinTokens > 0 {
		for _, id := range p.Stop {
			a.stops = append(a.stops, a.find(id))
		}
	}
	return a
}

// find returns the place of a token, which it makes.
func (a *adjustments) find(id int32) int {
	i, ok := a.index[id]
	if !ok {
		if a.index == nil {
			a.index = map[int32]int{}
		}
		i = len(a.list)
		a.index[id] = i
		a.list = append(a.list, Adjustment{ID: id, Count: Unseen})
	}
	return i
}

// add counts a generated token.
func (a *adjustments) add(id int32) {
	if a.penalties.on() {
		x := &a.list[a.find(id)]
		x.Count = max(x.Count, 0) + 1
	}
}

// apply adjusts logits.
func (a *adjustments) apply(logits []float32) {
	for _, x := range a.list {
		if uint(x.ID) >= uint(len(logits)) {
			continue
		}
		y := logits[x.ID] + x.Bias
		if x.Count >= 0 {
			y = a.penalties.penalise(y, x.Count)
		}
		logits[x.ID] = y
	}
}
