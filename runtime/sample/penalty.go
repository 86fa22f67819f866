package sample

// tokenCounts holds the distinct tokens of a sequence and how often each was
// generated: what the penalties look at.
type tokenCounts struct {
	repetition, frequency, presence float32

	index map[int32]int // of a token in list; nil when no penalty is on
	list  []tokenCount
}

type tokenCount struct {
	id        int32
	generated int32 // 0 for a token of the prompt only
}

// newTokenCounts returns the counts at the end of the prompt.
func newTokenCounts(p *Params, prompt []int32) tokenCounts {
	c := tokenCounts{repetition: p.RepetitionPenalty, frequency: p.FrequencyPenalty, presence: p.PresencePenalty}
	if !(c.repetition > 0) {
		c.repetition = 1
	}
	if c.repetition == 1 && c.frequency == 0 && c.presence == 0 {
		return c
	}
	c.index = map[int32]int{}
	if c.repetition != 1 {
		for _, id := range prompt {
			c.find(id)
		}
	}
	return c
}

func (c *tokenCounts) find(id int32) *tokenCount {
	i, ok := c.index[id]
	if !ok {
		i = len(c.list)
		c.index[id] = i
		c.list = append(c.list, tokenCount{id: id})
	}
	return &c.list[i]
}

// add counts a generated token.
func (c *tokenCounts) add(id int32) {
	if c.index != nil {
		c.find(id).generated++
	}
}

// penalise applies the repetition penalty (Keskar et al. 2019, section 4.1, with
// the sign rule of Hugging Face and vLLM: positive logits are divided, others
// multiplied), then OpenAI's frequency and presence penalties.
func (c *tokenCounts) penalise(logits []float32) {
	for _, t := range c.list {
		if uint(t.id) >= uint(len(logits)) {
			continue
		}
		x := logits[t.id]
		if x > 0 {
			x /= c.repetition
		} else {
			x *= c.repetition
		}
		if t.generated > 0 {
			x -= c.frequency*float32(t.generated) + c.presence
		}
		logits[t.id] = x
	}
}
