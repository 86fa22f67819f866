package sample

import (
	"slices"
	"testing"
)

// A sampler that is told its tokens goes on like one that picked them.
func TestAcceptedTokensCountLikeSampledOnes(t *testing.T) {
	p := Params{Temperature: 1, RepetitionPenalty: 1.3, FrequencyPenalty: 0.4, Seed: 5, MinTokens: 3, Stop: []int32{2}}
	logits := []float32{1, 0.5, 3, 0.2, 0.9, 0.7}
	picks, told := New(p, nil), New(p, nil)
	for i := range 20 {
		want := picks.Sample(slices.Clone(logits), nil).ID
		if i%2 == 0 {
			told.Accept(want)
		} else if got := told.Sample(slices.Clone(logits), nil).ID; got != want {
			t.Fatalf("token %d is %d, want %d", i, got, want)
		}
		if told.Uniform(0) != picks.Uniform(0) {
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
	for name, c := range map[string]struct {
		p    Params
		want bool
	}{
		"greedy":            {Params{}, true},
		"temperature":       {Params{Temperature: 1, TopK: 5, TopP: 0.5, MinP: 0.1, Seed: 3}, true},
		"no penalty":        {Params{RepetitionPenalty: 1}, true},
		"repetition":        {Params{RepetitionPenalty: 1.1}, false},
		"presence":          {Params{PresencePenalty: -1}, false},
		"frequency":         {Params{FrequencyPenalty: 1}, false},
		"bias":              {Params{LogitBias: map[int32]float32{1: 1}}, false},
		"stop held back":    {Params{MinTokens: 1, Stop: []int32{0}}, false},
		"nothing held back": {Params{MinTokens: 1}, true},
	} {
		if got := New(c.p, nil).Unadjusted(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	s := New(Params{MinTokens: 1, Stop: []int32{0}}, nil)
	s.Accept(1)
	if !s.Unadjusted() {
		t.Errorf("stop tokens are held back beyond min_tokens")
	}
}
