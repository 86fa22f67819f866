package runtime

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// conversations is how many TestConversationsGiveTheSameBits holds; `make soak`
// holds 200.
func conversations(t *testing.T) int {
	v := os.Getenv("MOASERVE_CONVERSATIONS")
	if v == "" {
		return 9
	}
	n, err := strconv.Atoi(v)
	if err != nil || n <= 0 {
		t.Fatalf("MOASERVE_CONVERSATIONS is %q", v)
	}
	return n
}

// turn is an answer with its bits.
type turn struct {
	prompt, cached int
	tokens         []int32
	logprobs       []uint32 // of the tokens, as bits
}

// converse holds conversation i with e, three to five turns on one of a few
// documents. What is asked depends on i and on the answers alone.
func converse(e *Engine, i int, documents [][]int32, text func(*rand.Rand, int) []int32, ask func(Request) (turn, error)) ([]turn, error) {
	rnd := rand.New(rand.NewPCG(uint64(i), 3))
	document := documents[rnd.IntN(len(documents))]
	prompt := slices.Clone(document[:100+rnd.IntN(len(document)-100)])
	if i%4 == 0 {
		prompt = text(rnd, 1+rnd.IntN(300)) // nobody else's
	}
	var turns []turn
	for n := range 3 + rnd.IntN(3) {
		r := Request{
			Prompt: prompt, Plan: []string{"dense", "moa-50", "moa-25"}[i%3], MaxTokens: 5 + rnd.IntN(60), IgnoreEOS: true,
			Sampling: sample.Params{Temperature: 0.8, Seed: uint64(i), Logprobs: true},
			Session:  []string{"", fmt.Sprint(i)}[i%2],
		}
		if i%5 == 0 {
			r.Sampling = sample.Params{Logprobs: true} // greedy
		}
		if rnd.IntN(4) == 0 {
			r.IgnoreEOS, r.Stop = false, []string{"."}
		}
		a, err := ask(r)
		if err != nil {
			return nil, fmt.Errorf("turn %d: %w", n, err)
		}
		turns = append(turns, a)
		prompt = slices.Concat(prompt, a.tokens, text(rnd, 5+rnd.IntN(30)))
	}
	return turns, nil
}

// Conversations give the same tokens and log-probabilities, bit for bit, whether
// their beginnings are kept or computed: with prefixes shared between them, given
// up, written to disk and read again, on every plan and KV type.
func TestConversationsGiveTheSameBitsWithReuse(t *testing.T) {
	types := []backend.KVType{backend.KVF16, backend.KVBF16, backend.KVQ8_0}
	n := (conversations(t) + len(types) - 1) / len(types)
	for _, kv := range types {
		cold := open(t, Options{NoPrefixCache: true, Context: 2048, KV: kv})
		// Room for one conversation at its longest, 1536 tokens under the dense plan.
		warm := open(t, Options{Context: 2048, KV: kv, MaxSequences: 6, KVDir: t.TempDir(), KVBytes: int64(90*24) * int64(cold.device.PageBytes())})
		vocabulary := strings.Fields("the ship sailed at dawn while rain fell over quiet hills and nobody in town knew why bells rang")
		text := func(rnd *rand.Rand, n int) []int32 {
			var b strings.Builder
			for range n {
				b.WriteString(vocabulary[rnd.IntN(len(vocabulary))] + " ")
			}
			return warm.Tokenizer().Encode(b.String(), tokenizer.EncodeOptions{})
		}
		var documents [][]int32
		for i := range uint64(3) {
			documents = append(documents, text(rand.New(rand.NewPCG(i, 1)), 700))
		}
		hold := func(e *Engine) ([][]turn, error) {
			all, errs := make([][]turn, n), make([]error, n)
			var wg sync.WaitGroup
			next := make(chan int)
			for range 6 {
				wg.Go(func() {
					for i := range next {
						all[i], errs[i] = converse(e, i, documents, text, func(r Request) (turn, error) { return answerBits(t, e, r) })
					}
				})
			}
			for i := range n {
				next <- i
			}
			close(next)
			wg.Wait()
			for i, err := range errs {
				if err != nil {
					return nil, fmt.Errorf("conversation %d: %w", i, err)
				}
			}
			return all, nil
		}
		want, err := hold(cold)
		if err != nil {
			t.Fatal(err)
		}
		got, err := hold(warm)
		if err != nil {
			t.Fatal(err)
		}
		prompts, cached := 0, 0
		for i := range want {
			for j, w := range want[i] {
				if w.cached != 0 {
					t.Errorf("%d tokens are cached without a cache", w.cached)
				}
				if g := got[i][j]; !slices.Equal(g.tokens, w.tokens) || !slices.Equal(g.logprobs, w.logprobs) {
					t.Fatalf("conversation %d, turn %d: with reuse %v, without %v", i, j, g, w)
				}
				prompts += w.prompt
				cached += got[i][j].cached
			}
		}
		s := warm.Stats()
		t.Logf("KV type %d, %d conversations: %d of %d prompt tokens from kept prefixes, %d prefixes given up, %d read from disk",
			kv, n, cached, prompts, s.PrefixEvictions, s.Spill.Loaded)
		if s.UsedPages != 0 || s.CommittedPages != 0 || 2*cached < prompts {
			t.Errorf("%d of %d prompt tokens came from kept prefixes; at the end %+v", cached, prompts, s)
		}
	}
}

func TestRestartedServerKnowsItsDocuments(t *testing.T) {
	dir := t.TempDir()
	document := strings.Repeat("The keeper of the lighthouse counted ships, and wrote their names into a book that nobody read. ", 60)
	first := open(t, Options{KVDir: dir})
	prompt := first.Tokenizer().Encode(document, tokenizer.EncodeOptions{})
	r := Request{Prompt: prompt, MaxTokens: 40, IgnoreEOS: true, Sampling: sample.Params{Logprobs: true}}
	a, err := answerBits(t, first, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, cold := open(t, Options{KVDir: dir}), open(t, Options{NoPrefixCache: true})
	for name, next := range map[string][]int32{
		"a follow-up":      slices.Concat(prompt, a.tokens, first.Tokenizer().Encode(" Why not?", tokenizer.EncodeOptions{})),
		"another question": slices.Concat(prompt[:len(prompt)-20], first.Tokenizer().Encode(" Who read the book?", tokenizer.EncodeOptions{})),
	} {
		r.Prompt = next
		got, err := answerBits(t, second, r)
		if err != nil {
			t.Fatal(err)
		}
		want, err := answerBits(t, cold, r)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.tokens, want.tokens) || !slices.Equal(got.logprobs, want.logprobs) {
			t.Errorf("%s after a restart: %v, without a past %v", name, got, want)
		}
		if len(next)-got.cached > 512+64 {
			t.Errorf("%s: %d of %d tokens were cached after a restart", name, got.cached, len(next))
		}
	}
}

// answerBits runs a request. Unlike generate it may be called by any goroutine.
func answerBits(t *testing.T, e *Engine, r Request) (turn, error) {
	events, err := e.Generate(t.Context(), r)
	if err != nil {
		return turn{}, err
	}
	a := turn{prompt: len(r.Prompt)}
	for ev := range events {
		for _, tok := range ev.Tokens {
			a.tokens = append(a.tokens, tok.ID)
			a.logprobs = append(a.logprobs, math.Float32bits(tok.Logprob))
		}
		if ev.Kind == EventFinished {
			a.cached, err = ev.Usage.CachedTokens, ev.Err
		}
	}
	return a, err
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
