package backendtest

import (
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
)

func TestFakeAnswersFromRestoredPages(t *testing.T) {
	const layers, kvHeads, vocab = 2, 2, 50
	p := plan.Uniform("narrow", plan.Shape{Layers: layers, KVHeads: kvHeads}, plan.Rule{Alpha: 192})
	p.Floor = 0
	l := p.Bind(0)
	prompt := tokens(300, vocab, 1)
	want := FakeAnswer(layers, kvHeads, vocab, l, prompt, sample.New(sample.Params{}, prompt), 1, nil)

	d := drive(t, NewFake(layers, kvHeads, vocab, backend.Options{}), 60)
	x := d.start(0, l, prompt)
	d.step(chunk{x, 256})
	kept := x.kv.Snapshot()
	image := readPages(d, kept)

	e := drive(t, NewFake(layers, kvHeads, vocab, backend.Options{}), 70)
	for _, damage := range []bool{true, false} {
		pages := slices.Clone(image)
		if damage { // the last two pages change places
			size := e.dev.PageBytes()
			last := len(pages) - 2*size
			copy(pages[last:], image[last+size:])
			copy(pages[last+size:], image[last:last+size])
		}
		n, err := kv.NewSnapshot(e.pages, kept.Layout(), kept.Tokens(), kept.Starts())
		if err != nil {
			t.Fatal(err)
		}
		writePages(e, n, pages)
		y := e.follow(1, l, prompt, n)
		b := e.batch(chunk{y, len(prompt) - n.Tokens()})
		b.Rows = []backend.Row{{Token: len(prompt) - n.Tokens() - 1, Sampler: sample.New(sample.Params{}, prompt)}}
		r, err := e.dev.Step(b)
		switch {
		case damage && err == nil:
			t.Error("pages in the wrong order were not noticed")
		case !damage && (err != nil || r.Choices[0].ID != want[0]):
			t.Errorf("answered %+v, %v, want token %d", r, err, want[0])
		}
		y.kv.Release()
		n.Release()
	}
}
