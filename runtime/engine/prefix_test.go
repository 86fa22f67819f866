package engine_test

import (
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
)

// free is an engine whose steps happen by themselves.
func free(t *testing.T, o engine.Options) *engine.Engine {
	t.Helper()
	o.MaxSequences = 4
	fake := backendtest.NewFake(layers, kvHeads, vocab, backend.Options{MaxBatchTokens: 512, MaxSequences: o.MaxSequences})
	e, err := engine.New(fake, fakeModel(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// ask runs a request and returns its tokens and how many of its prompt's were
// cached.
func ask(t *testing.T, e *engine.Engine, req engine.Request) ([]int32, int) {
	t.Helper()
	if req.Plan == nil {
		req.Plan = mixed(plan.SpanPosition)
	}
	req.MaxTokens = 8
	s, err := e.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := s.Next()
	o := drain(s)
	if o.last.Err != nil {
		t.Fatal(o.last.Err)
	}
	if want := answer(req, len(req.Prompt)+req.MaxTokens, req.MaxTokens); !slices.Equal(o.tokens, want) {
		t.Errorf("generated %v, want %v", o.tokens, want)
	}
	return o.tokens, first.CachedTokens
}

func TestFollowUpContinuesWhereTheAnswerEnded(t *testing.T) {
	e := free(t, engine.Options{Pages: 1000})
	text := prompt(315, 1)
	got, cached := ask(t, e, engine.Request{Prompt: text})
	if cached != 0 {
		t.Errorf("%d tokens of the first prompt were cached", cached)
	}
	// 315 + 8 tokens, the last of which was never fed back: 5 whole blocks.
	text = append(append(text, got...), prompt(20, 2)...)
	if _, cached = ask(t, e, engine.Request{Prompt: text}); cached != 320 {
		t.Errorf("%d tokens of the second turn were cached, want 320", cached)
	}
	// The same question again: everything but the last token could be.
	if _, cached = ask(t, e, engine.Request{Prompt: text[:320]}); cached != 256 {
		t.Errorf("%d tokens of a prompt of 5 blocks were cached, want 4 blocks: its last token is to be computed", cached)
	}
	if s := e.Stats(); s.PrefixHits != 2 || s.PrefixMisses != 1 || s.CachedTokens != 320+256 || s.UsedPages != 0 || s.CachedPages == 0 {
		t.Errorf("%+v", s)
	}
}

func TestEqualPromptsAtOnceShareThePrefill(t *testing.T) {
	e := free(t, engine.Options{Pages: 1000, StepTokens: 100})
	req := engine.Request{Prompt: prompt(300, 1), Plan: mixed(plan.SpanPosition), MaxTokens: 3}
	var streams []*engine.Stream
	for range 3 {
		s, err := e.Submit(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	want := answer(req, 303, 3)
	for i, s := range streams {
		if o := drain(s); !slices.Equal(o.tokens, want) {
			t.Errorf("stream %d generated %v, want %v", i, o.tokens, want)
		}
	}
	// Once all 300 tokens, twice what follows the fourth block.
	if n := e.Stats().PrefillTokens; n != 300+2*44 {
		t.Errorf("%d prompt tokens were computed, want 388", n)
	}
}

func TestAnotherQuestionContinuesBehindTheDocument(t *testing.T) {
	const end = 96 // ends a message
	for name, c := range map[string]struct {
		messages []int // lengths, without the question
		want     int
	}{
		"one document":                          {[]int{1000}, 15 * plan.BlockSize},
		"a long turn before it":                 {[]int{700, 800}, 23 * plan.BlockSize},
		"short turns, the last of which counts": {[]int{100, 100, 100}, 4 * plan.BlockSize},
	} {
		t.Run(name, func(t *testing.T) {
			e := free(t, engine.Options{Pages: 2000})
			words := func(n int, seed uint64) []int32 {
				text := prompt(n, seed)
				for i := range text {
					text[i] %= end
				}
				return text
			}
			var text []int32
			for i, n := range c.messages {
				text = append(append(text, words(n-1, uint64(i))...), end)
			}
			ask(t, e, engine.Request{Prompt: slices.Concat(text, words(300, 8)), Stop: []int32{end}})
			if _, cached := ask(t, e, engine.Request{Prompt: slices.Concat(text, words(20, 9)), Stop: []int32{end}}); cached != c.want {
				t.Errorf("%d of %d tokens were cached, want %d", cached, len(text), c.want)
			}
		})
	}
}

func TestQuestionsAtOnceShareTheDocument(t *testing.T) {
	inRig(t, engine.Options{Pages: 2000}, func(r *rig) {
		text := prompt(1000, 1)
		var streams []*engine.Stream
		for i := range 3 { // the first one's first chunk waits until all are there
			streams = append(streams, r.submit(engine.Request{Prompt: slices.Concat(text, prompt(100, uint64(i+2))), MaxTokens: 1}))
		}
		r.allowAll()
		for _, s := range streams {
			drain(s)
		}
		// The document once, to its last whole block; its rest and a question each.
		if n := r.Stats().PrefillTokens; n != 960+3*140 {
			t.Errorf("%d prompt tokens were computed, want %d", n, 960+3*140)
		}
	})
}

func TestPrefixIsNotSharedAcrossTenantsPlansAndBuckets(t *testing.T) {
	e := free(t, engine.Options{Pages: 4000})
	text := prompt(1600, 1)
	ask(t, e, engine.Request{Prompt: text[:200]})
	ask(t, e, engine.Request{Prompt: text[:200], Plan: mixed(plan.SpanLength)})
	for name, c := range map[string]struct {
		req  engine.Request
		want int
	}{
		"the same again":                {engine.Request{Prompt: text[:200]}, 192},
		"another tenant":                {engine.Request{Prompt: text[:200], Tenant: "b"}, 0},
		"another plan":                  {engine.Request{Prompt: text[:200], Plan: plan.NewDense(shape)}, 0},
		"span by length, the same size": {engine.Request{Prompt: text[:210], Plan: mixed(plan.SpanLength)}, 192},
		"span by length, another size":  {engine.Request{Prompt: text, Plan: mixed(plan.SpanLength)}, 0},
	} {
		if _, cached := ask(t, e, c.req); cached != c.want {
			t.Errorf("%s: %d tokens were cached, want %d", name, cached, c.want)
		}
	}
}

func TestKeptPrefixesGiveWayToRequests(t *testing.T) {
	// Room for one text of 600 tokens (10 blocks in each of 4 heads) and no more.
	e := free(t, engine.Options{Pages: 44})
	for seed := range uint64(6) {
		ask(t, e, engine.Request{Prompt: prompt(600, seed+1), Plan: plan.NewDense(shape)})
	}
	if s := e.Stats(); s.PrefixEvictions == 0 || s.FreePages()+s.CachedPages != 44 || s.Preemptions != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWithoutPrefixCacheNothingIsKept(t *testing.T) {
	e := free(t, engine.Options{Pages: 1000, NoPrefixCache: true})
	for range 2 {
		if _, cached := ask(t, e, engine.Request{Prompt: prompt(300, 1)}); cached != 0 {
			t.Errorf("%d tokens were cached", cached)
		}
	}
	if s := e.Stats(); s.Prefixes != 0 || s.CachedPages != 0 {
		t.Errorf("%+v", s)
	}
}
