//go:build cuda

package cuda

import (
	"math"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/internal/testmodel"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu"
	"github.com/moaserve/moaserve/runtime/internal/fakecuda"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/tokenizer"
	"github.com/moaserve/moaserve/runtime/weights"
)

const text = `A lighthouse keeper writes down the weather four times a day. In the morning the
wind comes from the land and the sea is flat; by noon the breeze has turned, and small
boats leave the harbour under full sail. The keeper counts them. When a boat is missing
in the evening, a bell is rung, and the people of the village come down to the pier with
lamps. Most of the time the boat has only been late: the fishermen stayed where the fish
were, as anybody would. But twice in the last forty years nobody came back, and the names
are carved into a stone beside the door of the lighthouse. The keeper reads them aloud on
the first day of every year, so that the sea, he says, knows that somebody remembers.`

// The real model, in pieces of different kinds, answers on the GPU as it does on
// the CPU with 16-bit activations.
func TestRealModelAnswersLikeTheCPU(t *testing.T) {
	g, err := weights.OpenGGUF(testmodel.Path(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	m, err := model.FromGGUF(g.Metadata(), g)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromGGUF(g.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	prompt := tok.Encode(text, tokenizer.EncodeOptions{})
	if fakecuda.Present() {
		prompt = prompt[:24] // plain C takes a second for four tokens
	}
	o := backend.Options{MaxBatchTokens: 128, MaxSequences: 4, MaxContext: 2048, Activations: backend.Int16, KV: backend.KVBF16}
	half := plan.Uniform("half", m.Shape(), plan.Rule{Beta: 0.5})
	half.Floor = 2 * plan.BlockSize
	for _, p := range []*plan.Plan{plan.NewDense(m.Shape()), half} {
		l := p.Bind(len(prompt))
		want := logitsOf(t, cpu.New(), m, g, o, l, prompt)
		got := logitsOf(t, New(), m, g, o, l, prompt)
		var diff, size float64
		same := 0
		for i := range got {
			for j, x := range want[i] {
				d := float64(got[i][j] - x)
				diff, size = diff+d*d, size+float64(x)*float64(x)
			}
			if slices.Index(got[i], slices.Max(got[i])) == slices.Index(want[i], slices.Max(want[i])) {
				same++
			}
		}
		distance, agreement := math.Sqrt(diff/size), float64(same)/float64(len(got))
		t.Logf("plan %s: %d tokens, relative distance of the logits %.4f, the same likeliest token for %.3f of them", p.Name, len(got), distance, agreement)
		// By the conformance suite's formula, 30 layers of bf16 are within 0.075 of the
		// exact answer; likeliest tokens whose logits are closer than that may swap.
		if !(distance < 0.075) || agreement < 0.9 {
			t.Errorf("plan %s: too far from the CPU's", p.Name)
		}
	}
}

// logitsOf computes the logits of all tokens: most as a prompt, the last ones
// one by one.
func logitsOf(t *testing.T, b backend.Backend, m *model.Model, src weights.Source, o backend.Options, l *plan.Layout, tokens []int32) [][]float32 {
	t.Helper()
	dev, err := b.Load(t.Context(), m, src, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	pages := kv.NewPool(l.PeakPages(0, len(tokens), o.MaxBatchTokens))
	pool, err := dev.NewPool(pages.Pages())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pool.Close() }()
	seq := kv.NewSequence(pages, l)
	const single = 9
	var out [][]float32
	for from := 0; from < len(tokens); from = seq.Len() {
		n := min(o.MaxBatchTokens, len(tokens)-from)
		if left := len(tokens) - single; from < left {
			n = min(n, left-from)
		} else {
			n = 1
		}
		deltas, err := seq.Extend(from+n, nil)
		if err != nil {
			t.Fatal(err)
		}
		batch := &backend.Batch{Tokens: tokens[from : from+n], Seqs: []backend.Seq{{Slot: 1, Len: n, Start: from, Layout: l}}}
		for _, x := range deltas {
			batch.Deltas = append(batch.Deltas, backend.TableDelta{Slot: 1, Head: x.Head, Block: x.Block, Page: x.Page})
		}
		for i := range n {
			batch.Rows = append(batch.Rows, backend.Row{Token: i, KeepLogits: true})
		}
		r, err := dev.Step(batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range r.Logits {
			out = append(out, slices.Clone(row))
		}
		seq.Advance()
	}
	return out
}
