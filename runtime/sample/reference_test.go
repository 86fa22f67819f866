package sample

import (
	"math"
	"math/rand/v2"
	"sort"
	"testing"

	"pgregory.net/rapid"
)

// state is a moment of a sequence: what a sampler has seen so far.
type state struct {
	prompt, generated []int32
	mask              []uint32
}

// adjusted applies biases, penalties, the mask and min_tokens in float64, one
// token at a time, straight from the definitions.
func adjusted(p Params, st state, logits []float32) []float64 {
	out := make([]float64, len(logits))
	for id, x := range logits {
		y := float64(x)
		if math.IsNaN(y) {
			y = math.Inf(-1)
		}
		y += float64(p.LogitBias[int32(id)])
		count := 0
		for _, g := range st.generated {
			if int(g) == id {
				count++
			}
		}
		seen := count > 0
		for _, t := range st.prompt {
			seen = seen || int(t) == id
		}
		if seen && p.RepetitionPenalty > 0 {
			if y > 0 {
				y /= float64(p.RepetitionPenalty)
			} else {
				y *= float64(p.RepetitionPenalty)
			}
		}
		y -= float64(p.FrequencyPenalty) * float64(count)
		if count > 0 {
			y -= float64(p.PresencePenalty)
		}
		if st.mask != nil && (id/32 >= len(st.mask) || st.mask[id/32]>>(id%32)&1 == 0) {
			y = math.Inf(-1)
		}
		if len(st.generated) < p.MinTokens {
			for _, stop := range p.Stop {
				if int(stop) == id {
					y = math.Inf(-1)
				}
			}
		}
		out[id] = y
	}
	return out
}

// weightTolerance bounds the relative error of a weight: exp32 has 3e-7, and its
// argument d = (l-max)/T is rounded three times in float32 (l itself after a
// penalty, the difference, the product), each an error of at most 2^-24*|d|.
// Weights with |d| > 20 are below 1e-8 of the whole and do not matter, so
// 3e-7 + 3*20*6e-8 < 5e-6; a cumulative share is a ratio of two such sums.
const weightTolerance = 1e-5

// distribution returns the probability of every token, and whether a cut-off is
// so near to a token that rounding may decide otherwise.
func distribution(p Params, adjusted []float64) (probs []float64, unsure bool) {
	order := make([]int, len(adjusted))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return adjusted[order[a]] > adjusted[order[b]] })
	w := make([]float64, len(adjusted))
	hi := adjusted[order[0]]
	for i, x := range adjusted {
		w[i] = math.Exp((x - hi) / float64(p.Temperature))
		if math.Abs(w[i]/float64(p.MinP)-1) < weightTolerance {
			unsure = true
		}
		if w[i] < float64(p.MinP) {
			w[i] = 0
		}
	}
	if p.TopK > 0 {
		for rank, i := range order {
			if rank >= p.TopK {
				w[i] = 0
			}
		}
	}
	normalise(w)
	if p.TopP > 0 && p.TopP < 1 {
		cum := 0.0
		for _, i := range order {
			if cum >= float64(p.TopP) {
				w[i] = 0
			} else {
				cum += w[i]
			}
			if math.Abs(cum-float64(p.TopP)) < weightTolerance {
				unsure = true
			}
		}
		normalise(w)
	}
	return w, unsure
}

func normalise(w []float64) {
	total := 0.0
	for _, x := range w {
		total += x
	}
	for i := range w {
		w[i] /= total
	}
}

func randomLogits(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * 3)
	}
	return x
}

func anyParams(t *rapid.T, vocab int) Params {
	id := rapid.Int32Range(0, int32(vocab-1))
	share := func(label string) float32 { return rapid.Float32Range(0, 1).Draw(t, label) }
	p := Params{Temperature: rapid.Float32Range(0.2, 3).Draw(t, "temperature"), Seed: rapid.Uint64().Draw(t, "seed")}
	on := func(label string) bool { return rapid.Bool().Draw(t, label) }
	if on("top_p?") {
		p.TopP = share("top_p")
	}
	if on("min_p?") {
		p.MinP = share("min_p") / 10
	}
	if on("top_k?") {
		p.TopK = rapid.IntRange(1, vocab+1).Draw(t, "top_k")
	}
	if on("penalties?") {
		p.PresencePenalty = rapid.Float32Range(-2, 2).Draw(t, "presence")
		p.FrequencyPenalty = rapid.Float32Range(-2, 2).Draw(t, "frequency")
		p.RepetitionPenalty = rapid.Float32Range(0.5, 2).Draw(t, "repetition")
	}
	if on("bias?") {
		p.LogitBias = rapid.MapOfN(id, rapid.Float32Range(-5, 5), 0, 5).Draw(t, "bias")
	}
	if on("min_tokens?") {
		p.MinTokens = rapid.IntRange(0, 4).Draw(t, "min_tokens")
		p.Stop = rapid.SliceOfN(id, 0, 3).Draw(t, "stop")
	}
	return p
}

// TestSamplerAgreesWithTheReference draws whole sequences under any parameters
// and looks, for each token, whether the reference's distribution maps the same
// random number to the same token.
func TestSamplerAgreesWithTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vocab := rapid.IntRange(2, 700).Draw(t, "vocab")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "logits"), 1))
		p := anyParams(t, vocab)
		st := state{prompt: rapid.SliceOfN(rapid.Int32Range(0, int32(vocab-1)), 0, 20).Draw(t, "prompt")}
		s := New(p, st.prompt)
		for n := range 6 {
			logits := randomLogits(r, vocab)
			if n%2 == 1 {
				st.mask = make([]uint32, (vocab+31)/32)
				for i := range st.mask {
					st.mask[i] = r.Uint32() | r.Uint32()
				}
			} else {
				st.mask = nil
			}
			want := adjusted(p, st, logits)
			probs, unsure := distribution(p, want)
			got := s.Sample(logits, st.mask).ID
			if math.IsNaN(probs[0]) {
				return // everything is held back; the fallback has its own test
			}
			if u := uniform(p.Seed, uint64(n)); !unsure {
				below := 0.0
				for _, q := range probs[:got] {
					below += q
				}
				if u < below-weightTolerance || u > below+probs[got]+weightTolerance || probs[got] == 0 {
					t.Fatalf("token %d: %v picks %d, whose share is %v from %v on", n, u, got, probs[got], below)
				}
			}
			st.generated = append(st.generated, got)
		}
	})
}

// TestGreedyAgreesWithTheReference: the likeliest token of the adjusted logits.
func TestGreedyAgreesWithTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vocab := rapid.IntRange(2, 300).Draw(t, "vocab")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "logits"), 2))
		p := anyParams(t, vocab)
		p.Temperature = 0
		st := state{prompt: rapid.SliceOfN(rapid.Int32Range(0, int32(vocab-1)), 0, 20).Draw(t, "prompt")}
		s := New(p, st.prompt)
		for range 5 {
			logits := randomLogits(r, vocab)
			want := adjusted(p, st, logits)
			got := s.Sample(logits, nil).ID
			for id, x := range want {
				// Three float32 operations on numbers below 64: 3 * 64 * 2^-24.
				if x > want[got]+1.2e-5 {
					t.Fatalf("picked %d (%v), but %d has %v", got, want[got], id, x)
				}
			}
			st.generated = append(st.generated, got)
		}
	})
}

// TestLogprobsAreTheRawLogSoftmax, whatever the other parameters are.
func TestLogprobsAreTheRawLogSoftmax(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vocab := rapid.IntRange(2, 300).Draw(t, "vocab")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "logits"), 3))
		p := anyParams(t, vocab)
		p.Logprobs, p.TopLogprobs = true, rapid.IntRange(0, MaxTopLogprobs).Draw(t, "top_logprobs")
		logits := randomLogits(r, vocab)
		raw := append([]float32(nil), logits...)
		total := 0.0
		for _, x := range raw {
			total += math.Exp(float64(x))
		}
		// float32 rounds a result below 32 by 2^-20; exp32 adds 3e-7.
		check := func(id int32, got float32) {
			if want := float64(raw[id]) - math.Log(total); math.Abs(float64(got)-want) > 2e-6 {
				t.Fatalf("token %d has log-probability %v, want %v", id, got, want)
			}
		}
		c := New(p, nil).Sample(logits, nil)
		check(c.ID, c.Logprob)
		if len(c.Top) != min(p.TopLogprobs, vocab) {
			t.Fatalf("%d alternatives, want %d", len(c.Top), p.TopLogprobs)
		}
		order := make([]int32, vocab)
		for i := range order {
			order[i] = int32(i)
		}
		sort.SliceStable(order, func(a, b int) bool { return raw[order[a]] > raw[order[b]] })
		for i, top := range c.Top {
			if top.ID != order[i] {
				t.Fatalf("alternative %d is %d, want %d", i, top.ID, order[i])
			}
			check(top.ID, top.Logprob)
		}
	})
}
