package sample

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

func TestExp32IsCloseToExp(t *testing.T) {
	worst := 0.0
	for i := range 200000 {
		x := -87 * float32(i) / 200000
		worst = max(worst, math.Abs(float64(exp32(x))/math.Exp(float64(x))-1))
	}
	if worst > 3e-7 {
		t.Errorf("relative error %v", worst)
	}
	if exp32(0) != 1 {
		t.Errorf("exp32(0) = %v; the largest weight must be exactly 1", exp32(0))
	}
}

// TestMix64IsSplitMix64 compares with the published first outputs of the
// generator seeded with 0.
func TestMix64IsSplitMix64(t *testing.T) {
	state := uint64(0)
	for i, want := range []uint64{0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		state += 0x9e3779b97f4a7c15
		if got := mix64(state); got != want {
			t.Errorf("output %d is %#x, want %#x", i, got, want)
		}
	}
}

// TestASeedKeepsItsMeaning holds numbers computed with the same formula in
// Python: a client's seed must give the same answer in the next version.
func TestASeedKeepsItsMeaning(t *testing.T) {
	for _, c := range []struct {
		seed, n uint64
		want    float64
	}{
		{0, 0, 0.6524484863740322}, {0, 1, 0.7012121095215252},
		{42, 0, 0.34329192209867343}, {math.MaxUint64, 7, 0.7238582745899125},
	} {
		if got := uniform(c.seed, c.n); got != c.want {
			t.Errorf("number %d of seed %d is %v, want %v", c.n, c.seed, got, c.want)
		}
	}
}

func TestGreedyTakesTheLowestIDAmongEquals(t *testing.T) {
	if c := New(Params{}, nil).Sample([]float32{1, 3, 3, 2}, nil); c.ID != 1 {
		t.Errorf("picked %d", c.ID)
	}
}

// TestDrawsFollowTheDistribution is a chi-square test over a few tokens. With k-1
// degrees of freedom the statistic has mean k-1 and variance 2(k-1); five standard
// deviations above is exceeded by chance less than once in 10,000 runs, and the
// seeds are fixed.
func TestDrawsFollowTheDistribution(t *testing.T) {
	logits := []float32{0, 1, 2, 0.5, -1, 1.5, 3, -2}
	for name, p := range map[string]Params{
		"plain":  {Temperature: 1},
		"hot":    {Temperature: 2, TopP: 0.95},
		"narrow": {Temperature: 0.7, TopK: 4},
		"min_p":  {Temperature: 1, MinP: 0.1},
	} {
		t.Run(name, func(t *testing.T) {
			const draws = 40000
			p.Seed = 12345
			probs, _ := distribution(p, adjusted(p, state{}, logits))
			s := New(p, nil)
			counts := make([]float64, len(logits))
			for range draws {
				counts[s.Sample(append([]float32(nil), logits...), nil).ID]++
			}
			chi, df := 0.0, -1.0
			for id, q := range probs {
				if q == 0 {
					if counts[id] > 0 {
						t.Errorf("token %d was cut off and drawn %v times", id, counts[id])
					}
					continue
				}
				df++
				chi += (counts[id] - q*draws) * (counts[id] - q*draws) / (q * draws)
			}
			if limit := df + 5*math.Sqrt(2*df); chi > limit {
				t.Errorf("chi-square %.1f with %v degrees of freedom, at most %.1f", chi, df, limit)
			}
		})
	}
}

func TestUniformNumbersAreUniform(t *testing.T) {
	// Sixteen bins for the numbers of one stream, and for the first numbers of
	// neighbouring seeds: chi-square with 15 degrees of freedom, limit as above.
	for name, f := range map[string]func(i uint64) float64{
		"one stream":       func(i uint64) float64 { return uniform(7, i) },
		"neighbour seeds":  func(i uint64) float64 { return uniform(i, 0) },
		"seed and counter": func(i uint64) float64 { return uniform(i, i) },
	} {
		var bins [16]float64
		const n = 1 << 16
		for i := range uint64(n) {
			bins[int(f(i)*16)]++
		}
		chi := 0.0
		for _, b := range bins {
			chi += (b - n/16) * (b - n/16) / (n / 16)
		}
		if limit := 15 + 5*math.Sqrt(30); chi > limit {
			t.Errorf("%s: chi-square %.1f, at most %.1f", name, chi, limit)
		}
	}
}

func sequence(p Params, vocab, n int, disturb func()) []int32 {
	r := rand.New(rand.NewPCG(1, 2))
	s := New(p, []int32{1, 2, 3})
	var out []int32
	for range n {
		disturb()
		out = append(out, s.Sample(randomLogits(r, vocab), nil).ID)
	}
	return out
}

func TestTokensDependOnTheSeedAlone(t *testing.T) {
	p := Params{Temperature: 1, TopP: 0.9, TopK: 50, RepetitionPenalty: 1.1, Seed: 42}
	other := New(Params{Temperature: 2, Seed: 42}, nil)
	first := sequence(p, 1000, 50, func() {})
	second := sequence(p, 1000, 50, func() { other.Sample(make([]float32, 10), nil) })
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("another sampler changed the tokens:\n%s", diff)
	}
	p.Seed++
	if cmp.Equal(first, sequence(p, 1000, 50, func() {})) {
		t.Error("another seed gave the same tokens")
	}
}

// TestOneBadParameterIsNamed: Validate accepts the ends of every range and
// refuses what is beyond.
func TestOneBadParameterIsNamed(t *testing.T) {
	for _, good := range []Params{
		{},
		{Temperature: 2, TopP: 1, MinP: 1, TopK: 1, PresencePenalty: -2, FrequencyPenalty: 2, RepetitionPenalty: 1.5},
		{Logprobs: true, TopLogprobs: 20, MinTokens: 5, Stop: []int32{1}, LogitBias: map[int32]float32{1: -100, 2: 100}},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	many := map[int32]float32{}
	for i := range int32(MaxLogitBias + 1) {
		many[i] = 0
	}
	for _, c := range []struct {
		param string
		p     Params
	}{
		{"temperature", Params{Temperature: -1}},
		{"temperature", Params{Temperature: nan}},
		{"temperature", Params{Temperature: inf}},
		{"top_p", Params{TopP: 1.1}},
		{"min_p", Params{MinP: -0.1}},
		{"top_k", Params{TopK: -1}},
		{"presence_penalty", Params{PresencePenalty: 2.5}},
		{"frequency_penalty", Params{FrequencyPenalty: -2.5}},
		{"repetition_penalty", Params{RepetitionPenalty: -1}},
		{"top_logprobs", Params{Logprobs: true, TopLogprobs: 21}},
		{"top_logprobs", Params{TopLogprobs: 1}},
		{"min_tokens", Params{MinTokens: -1}},
		{"stop_token_ids", Params{Stop: make([]int32, MaxStop+1)}},
		{"logit_bias", Params{LogitBias: many}},
		{"logit_bias", Params{LogitBias: map[int32]float32{-1: 0}}},
		{"logit_bias", Params{LogitBias: map[int32]float32{1: nan}}},
	} {
		err := c.p.Validate()
		if e, ok := errors.AsType[*ParamError](err); !ok || e.Param != c.param {
			t.Errorf("%+v: got %v, want an error about %s", c.p, err, c.param)
		}
	}
}

func TestBrokenLogitsStillGiveAToken(t *testing.T) {
	hot := Params{Temperature: 1, Logprobs: true, TopLogprobs: 2}
	held := Params{MinTokens: 1, Stop: []int32{0, 2}}
	for _, c := range []struct {
		name   string
		p      Params
		logits []float32
		mask   []uint32
		want   int32
	}{
		{"NaN is never picked", Params{}, []float32{nan, 1, nan}, nil, 1},
		{"NaN is never drawn", hot, []float32{nan, 1, nan}, nil, 1},
		{"+Inf is the largest", Params{}, []float32{0, inf, 5}, nil, 1},
		{"+Inf is drawn", hot, []float32{0, inf, 5}, nil, 1},
		{"all NaN", hot, []float32{nan, nan}, nil, 0},
		{"all -Inf", hot, []float32{-inf, -inf}, nil, 0},
		{"all NaN under a mask", hot, []float32{nan, nan, nan}, []uint32{0b110}, 1},
		{"only NaN is allowed", hot, []float32{1, nan, 1}, []uint32{0b010}, 1},
		{"nothing is allowed", hot, []float32{1, 2}, []uint32{0}, 0},
		{"the mask is too short", Params{}, append(make([]float32, 32), 9), []uint32{0b100}, 2},
		{"all but stops are NaN", held, []float32{1, nan, 1, nan}, nil, 1},
		{"the mask allows only a stop", held, []float32{1, 1, 1}, []uint32{0b100}, 2},
		{"no logits", hot, nil, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := New(c.p, nil).Sample(c.logits, c.mask)
			if got.ID != c.want {
				t.Errorf("picked %d, want %d", got.ID, c.want)
			}
			for _, l := range append(got.Top, Logprob{0, got.Logprob}) {
				if !(l.Logprob >= minLogprob && l.Logprob <= 0) {
					t.Errorf("log-probability %v", l.Logprob)
				}
			}
		})
	}
}

// TestNothingPanics: any parameters, validated or not, any numbers for logits.
func TestNothingPanics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Custom(func(t *rapid.T) float32 {
			return math.Float32frombits(rapid.Uint32().Draw(t, "bits"))
		})
		ids := rapid.SliceOfN(rapid.Int32(), 0, 5)
		p := Params{
			Temperature: f.Draw(t, "temperature"), TopP: f.Draw(t, "top_p"), MinP: f.Draw(t, "min_p"),
			TopK: rapid.IntRange(-3, 400).Draw(t, "top_k"), PresencePenalty: f.Draw(t, "presence"),
			FrequencyPenalty: f.Draw(t, "frequency"), RepetitionPenalty: f.Draw(t, "repetition"),
			LogitBias: rapid.MapOfN(rapid.Int32(), f, 0, 5).Draw(t, "bias"), Logprobs: rapid.Bool().Draw(t, "logprobs"),
			TopLogprobs: rapid.IntRange(-3, 400).Draw(t, "top_logprobs"), Stop: ids.Draw(t, "stop"), MinTokens: 2,
		}
		s := New(p, ids.Draw(t, "prompt"))
		mask := rapid.SliceOfN(rapid.Uint32(), 0, 4).Draw(t, "mask")
		allowed := func(id int32) bool { return int(id/32) < len(mask) && mask[id/32]>>(id%32)&1 == 1 }
		for range 3 {
			logits := rapid.SliceOfN(f, 0, 100).Draw(t, "logits")
			possible := false
			for id := range int32(len(logits)) {
				possible = possible || allowed(id)
			}
			c := s.Sample(logits, mask)
			if possible && !allowed(c.ID) || c.ID < 0 || int(c.ID) >= max(len(logits), 1) {
				t.Fatalf("picked %d under mask %b", c.ID, mask)
			}
		}
	})
}

func TestTopKKeepsTheLowestIDsAmongEquals(t *testing.T) {
	for name, k := range map[string]int{"heap": 3, "radix": shortList + 1} {
		seen := map[int32]bool{}
		for seed := range uint64(4000) {
			logits := make([]float32, 2*shortList)
			seen[New(Params{Temperature: 1, TopK: k, Seed: seed}, nil).Sample(logits, nil).ID] = true
		}
		for id := range seen {
			if int(id) >= k {
				t.Errorf("%s: drew token %d of the %d lowest", name, id, k)
			}
		}
	}
}

// TestTruncateKeepsTheShortestPrefix compares with sorting, on weights with many
// ties: multiples of 1/64, whose sums are exact.
func TestTruncateKeepsTheShortestPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) float32 {
			return float32(rapid.IntRange(0, 64).Draw(t, "w")) / 64
		}), 1, 60).Draw(t, "weights")
		byMass := rapid.Bool().Draw(t, "by mass")
		need := float64(rapid.IntRange(1, 640).Draw(t, "need")) / 64
		if !byMass {
			need = math.Ceil(need)
		}
		want := make([]float32, len(w))
		for held := 0.0; held < need; {
			best := -1
			for i, x := range w {
				if x > 0 && want[i] == 0 && (best < 0 || x > w[best]) {
					best = i
				}
			}
			if best < 0 {
				break
			}
			want[best] = w[best]
			if byMass {
				held += float64(w[best])
			} else {
				held++
			}
		}
		got := append([]float32(nil), w...)
		truncate(got, need, byMass)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("need %v: -want +got\n%s", need, diff)
		}
	})
}

func TestSamplingDoesNotAllocate(t *testing.T) {
	for name, p := range map[string]Params{
		"greedy":    {},
		"plain":     {Temperature: 1},
		"top_k":     {Temperature: 1, TopK: 40},
		"top_p":     {Temperature: 1, TopP: 0.9, MinP: 0.01},
		"large k":   {Temperature: 1, TopK: 1000},
		"logprobs":  {Logprobs: true},
		"penalties": {RepetitionPenalty: 1.1, FrequencyPenalty: 0.1},
	} {
		s := New(p, nil)
		logits := make([]float32, 2000)
		if n := testing.AllocsPerRun(20, func() {
			clear(logits)
			logits[7] = 30
			s.Sample(logits, nil)
		}); n != 0 {
			t.Errorf("%s: %v allocations a token", name, n)
		}
	}
}

func BenchmarkSample(b *testing.B) {
	for _, vocab := range []struct {
		name string
		n    int
	}{{"49k", 49152}, {"152k", 151936}} {
		logits := randomLogits(rand.New(rand.NewPCG(1, 1)), vocab.n)
		mask := make([]uint32, (vocab.n+31)/32)
		for i := range mask {
			mask[i] = 0xfffffff0
		}
		for _, c := range []struct {
			name string
			p    Params
			mask []uint32
		}{
			{"greedy", Params{}, nil},
			{"greedy masked", Params{}, mask},
			{"plain", Params{Temperature: 1}, nil},
			{"top_k 40", Params{Temperature: 0.8, TopK: 40, TopP: 0.95}, nil},
			{"top_k 5000", Params{Temperature: 0.8, TopK: 5000}, nil},
			{"top_p", Params{Temperature: 0.8, TopP: 0.95}, nil},
			{"top_logprobs 20", Params{Logprobs: true, TopLogprobs: 20}, nil},
		} {
			b.Run(vocab.name+"/"+c.name, func(b *testing.B) {
				s := New(c.p, nil)
				scratch := make([]float32, len(logits))
				b.ReportAllocs()
				for b.Loop() {
					copy(scratch, logits)
					s.Sample(scratch, c.mask)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}
