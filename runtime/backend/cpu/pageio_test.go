package cpu

import (
	"bytes"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// pagesOf computes a text and returns the format and the bytes of its pages.
func pagesOf(t *testing.T, set isa.ISA, o backend.Options) (format string, content []byte) {
	t.Helper()
	const tokens = 2 * plan.BlockSize
	m, src := modeltest.New(t, modeltest.Options{Hidden: 128, Heads: 2, KVHeads: 1, HeadDim: 64, FFN: 256, Vocab: 256, Seed: 3, Type: weights.Q4_1})
	o.MaxBatchTokens, o.MaxSequences = tokens, 1
	dev, err := NewWithISA(set).Load(t.Context(), m, src, o)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	l := plan.NewDense(m.Shape()).Bind(tokens)
	pool, err := dev.NewPool(l.Pages(tokens))
	if err != nil {
		t.Fatal(err)
	}
	io := pool.(backend.PageIO)
	pages := kv.NewPool(pool.Pages())
	s := kv.NewSequence(pages, l)
	deltas, err := s.Extend(tokens, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend.Batch{Seqs: []backend.Seq{{Len: tokens, Layout: l}}}
	for i := range tokens {
		b.Tokens = append(b.Tokens, int32(i*37%m.Vocab))
	}
	for _, d := range deltas {
		b.Deltas = append(b.Deltas, backend.TableDelta{Head: d.Head, Block: d.Block, Page: d.Page})
	}
	if _, err := dev.Step(b); err != nil {
		t.Fatal(err)
	}
	s.Advance()
	page := make([]byte, dev.PageBytes())
	for _, e := range s.Entries(nil) {
		if err := io.ReadPage(e.Page, page); err != nil {
			t.Fatal(err)
		}
		content = append(content, page...)
	}
	return io.Format(), content
}

// A kept page may stand for a computed one only if it has the same bits: what
// changes them must be in the format.
func TestPagesOfOneFormatHaveTheSameBytes(t *testing.T) {
	contents := map[string][]byte{}
	for _, set := range isa.All() {
		for _, o := range []backend.Options{
			{Threads: 1}, {Threads: 2}, {KV: backend.KVBF16}, {KV: backend.KVQ8_0}, {Activations: backend.Int16},
		} {
			format, content := pagesOf(t, set, o)
			first, ok := contents[format]
			if ok && !bytes.Equal(first, content) {
				t.Errorf("%v, %+v: pages of the format %q have other bytes", set, o, format)
			}
			for other, c := range contents {
				if other != format && bytes.Equal(c, content) {
					t.Logf("formats %q and %q have the same bytes", other, format)
				}
			}
			contents[format] = content
		}
	}
	if len(contents) != 4*len(isa.All()) {
		t.Errorf("%d formats for %d instruction sets, three types of the cache and two of activations", len(contents), len(isa.All()))
	}
}
