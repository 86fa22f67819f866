package runtime

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// Conversations give the same tokens whether their beginnings are cached or
// computed, on every plan, and the follow-ups find nearly all of their past.
func TestPrefixReuseNeverChangesTheAnswer(t *testing.T) {
	cold := open(t, Options{NoPrefixCache: true})
	warm := open(t, Options{})
	rnd := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the ship sailed at dawn while rain fell over quiet hills and nobody in town knew why bells rang")
	text := func(n int) []int32 {
		var b strings.Builder
		for range n {
			b.WriteString(words[rnd.IntN(len(words))] + " ")
		}
		return warm.Tokenizer().Encode(b.String(), tokenizer.EncodeOptions{})
	}
	document := text(700)
	for i := range 6 {
		prompt := slices.Clone(document[:200+rnd.IntN(len(document)-200)])
		if i%3 == 0 {
			prompt = text(20 + rnd.IntN(300))
		}
		for turn := range 3 {
			r := Request{
				Prompt: prompt, Plan: []string{"dense", "moa-50", "moa-25"}[i%3], MaxTokens: 5 + rnd.IntN(30), IgnoreEOS: true,
				Sampling: sample.Params{Temperature: 0.8, Seed: uint64(i)},
			}
			want, got := generate(t, cold, r), generate(t, warm, r)
			if !slices.Equal(want.tokens, got.tokens) {
				t.Fatalf("conversation %d, turn %d: %q with the cache, %q without", i, turn, got.text, want.text)
			}
			if cached := got.end.Usage.CachedTokens; turn > 0 && len(prompt)-cached > 64+64+r.MaxTokens+30 {
				t.Errorf("conversation %d, turn %d: %d of %d prompt tokens were cached", i, turn, cached, len(prompt))
			}
			if cached := want.end.Usage.CachedTokens; cached != 0 {
				t.Errorf("%d tokens are cached without a cache", cached)
			}
			prompt = append(append(slices.Clone(prompt), got.tokens...), text(5+rnd.IntN(10))...)
		}
	}
	if s := warm.Stats(); s.UsedPages != 0 || s.PrefixHits == 0 || s.CachedTokens == 0 {
		t.Errorf("at the end: %+v", s)
	}
}

func TestTenantsDoNotShareAPrefix(t *testing.T) {
	e := open(t, Options{})
	prompt := e.Tokenizer().Encode(strings.Repeat("All that is said here stays here. ", 40), tokenizer.EncodeOptions{})
	for _, c := range []struct {
		tenant string
		cached bool
	}{{"a", false}, {"a", true}, {"b", false}} {
		a := generate(t, e, Request{Prompt: prompt, Tenant: c.tenant, MaxTokens: 2})
		if (a.end.Usage.CachedTokens > 0) != c.cached {
			t.Errorf("tenant %s: %d cached tokens, want some: %v", c.tenant, a.end.Usage.CachedTokens, c.cached)
		}
	}
}
