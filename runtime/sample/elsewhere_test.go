package sample

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A sampler that is told its tokens goes on like one that picked them.
func TestAcceptedTokensCountLikeSampledOnes(t *testing.T) {
	p := Params{Temperature: 1, RepetitionPenalty: 1.3, FrequencyPenalty: 0.4, Seed: 5, MinTokens: 3, Stop: []int32{2}}
	logits := []float32{1, 0.5, 3, 0.2, 0.9, 0.7}
	picks, told := New(p, nil), New(p, nil)
	for i := range 20 {
		ahead := told.Uniform(1)
		want := picks.Sample(slices.Clone(logits), nil).ID
		if i%2 == 0 {
			told.Accept(want)
		} else if got := told.Sample(slices.Clone(logits), nil).ID; got != want {
			t.Fatalf("token %d is %d, want %d", i, got, want)
		}
		if told.Uniform(0) != picks.Uniform(0) || told.Uniform(0) != ahead {
			t.Fatalf("after %d tokens the random streams are apart", i+1)
		}
	}
}

func TestUniformDecidesTheDraw(t *testing.T) {
	s := New(Params{Temperature: 1, Seed: 9}, nil)
	for range 50 {
		want := int32(1)
		if s.Uniform(0) < 0.5 { // two tokens of equal weight
			want = 0
		}
		if got := s.Sample([]float32{2, 2}, nil).ID; got != want {
			t.Fatalf("%d was drawn, want %d", got, want)
		}
	}
}

func TestWhatAdjustsLogitsIsTold(t *testing.T) {
	prompt := []int32{7, 8, 7}
	for name, c := range map[string]struct {
		p            Params
		now, pending int // adjustments, of the next token and of the one after it
		counts       bool
	}{
		"greedy":             {Params{}, 0, 0, false},
		"temperature":        {Params{Temperature: 1, TopK: 5, TopP: 0.5, MinP: 0.1, Seed: 3}, 0, 0, false},
		"no penalty":         {Params{RepetitionPenalty: 1}, 0, 0, false},
		"repetition":         {Params{RepetitionPenalty: 1.1}, 2, 2, true},
		"presence":           {Params{PresencePenalty: -1}, 0, 0, true},
		"frequency":          {Params{FrequencyPenalty: 1, LogitBias: map[int32]float32{1: 1}}, 1, 1, true},
		"bias":               {Params{LogitBias: map[int32]float32{1: 1, 7: 0}}, 2, 2, false},
		"bias of the prompt": {Params{RepetitionPenalty: 2, LogitBias: map[int32]float32{1: 1, 7: 0}}, 3, 3, true},
		"stop held back":     {Params{MinTokens: 1, Stop: []int32{0, 0}}, 1, 0, false},
		"two held back":      {Params{MinTokens: 2, Stop: []int32{0, 5}}, 2, 2, false},
		"nothing held back":  {Params{MinTokens: 1}, 0, 0, false},
	} {
		s := New(c.p, prompt)
		if now, pending := s.Adjustments(0), s.Adjustments(1); now != c.now || pending != c.pending {
			t.Errorf("%s: %d adjustments, %d after a token, want %d and %d", name, now, pending, c.now, c.pending)
		}
		if _, counts := s.Penalties(); counts != c.counts {
			t.Errorf("%s: tokens are counted: %t", name, counts)
		}
	}
}

// adjustElsewhere does what a device does with adjustments, one of which it may
// have to make itself.
func adjustElsewhere(s *Sampler, logits []float32, pending []int32) {
	p, counts := s.Penalties()
	list := make([]Adjustment, s.Adjustments(len(pending)))
	s.CopyAdjustments(list, len(pending))
	for _, id := range pending {
		at := slices.IndexFunc(list, func(a Adjustment) bool { return a.ID == id })
		switch {
		case !counts:
		case at < 0:
			list = slices.Concat(list, []Adjustment{{ID: id, Count: 1}})
		case list[at].Count != Held:
			list[at].Count = max(list[at].Count, 0) + 1
		}
	}
	for _, a := range list {
		switch x := &logits[a.ID]; a.Count {
		case Held:
			*x = -inf
		case Unseen:
			*x += a.Bias
		default:
			*x = p.penalise(*x+a.Bias, a.Count)
		}
	}
}

// TestAdjustmentsMakeTheSamplersLogits: applied elsewhere, with the last token
// told or pending, they give the very numbers that Sample chooses from.
func TestAdjustmentsMakeTheSamplersLogits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vocab := rapid.IntRange(2, 60).Draw(t, "vocab")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "logits"), 4))
		p := anyParams(t, vocab)
		ids := rapid.SliceOfN(rapid.Int32Range(0, int32(vocab-1)), 0, 20)
		prompt := ids.Draw(t, "prompt")
		told, behind := New(p, prompt), New(p, prompt)
		var pending []int32
		for _, id := range ids.Draw(t, "generated") {
			logits := randomLogits(r, vocab)
			want := slices.Clone(logits)
			told.adjust(want, nil)
			for name, s := range map[string]*Sampler{"told": told, "behind": behind} {
				got := slices.Clone(logits)
				if s == told {
					adjustElsewhere(s, got, nil)
				} else {
					adjustElsewhere(s, got, pending)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%s: %v, want %v", name, got, want)
				}
			}
			told.Accept(id)
			for _, last := range pending {
				behind.Accept(last)
			}
			pending = []int32{id}
		}
	})
}
