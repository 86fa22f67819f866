package backendtest

import (
	"context"
	"errors"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// lifecycleCases look at loading, pools and refusals.
func (s *suite) lifecycleCases() []testCase {
	return []testCase{
		{"loading reports progress up to the end", s.progress},
		{"loading heeds its context", s.cancelledLoad},
		{"a device describes itself and its pages", s.describe},
		{"a device has one pool at a time", s.onePool},
		{"a step that does not fit the device is refused", s.refusals},
	}
}

func (s *suite) progress(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	o := s.o.Load
	o.KV, o.MaxBatchTokens, o.MaxSequences = s.o.KV[0], maxBatchTokens, maxSequences
	var last, total int64
	o.Progress = func(done, of int64) {
		if done < last || done > of || total != 0 && of != total {
			t.Errorf("progress went from %d of %d to %d of %d", last, total, done, of)
		}
		last, total = done, of
	}
	dev, err := s.backend.Load(t.Context(), m, src, o)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if total == 0 || last != total {
		t.Errorf("progress ended with %d of %d", last, total)
	}
	if err := dev.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func (s *suite) cancelledLoad(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	o := s.o.Load
	o.KV, o.MaxBatchTokens, o.MaxSequences = s.o.KV[0], maxBatchTokens, maxSequences
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dev, err := s.backend.Load(ctx, m, src, o)
	if err == nil {
		err = dev.Close()
		t.Fatalf("Load with a cancelled context succeeded; Close: %v", err)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Load: %v, want context.Canceled", err)
	}
}

func (s *suite) describe(t testing.TB) {
	if s.backend.Name() == "" {
		t.Errorf("the backend has no name")
	}
	o := s.small()
	m, src := modeltest.New(t, o)
	for _, kv := range s.o.KV {
		dev := s.load(t, m, src, kv)
		if dev.Describe() == "" {
			t.Errorf("the device has no description")
		}
		// Keys and values of a block, two bytes each, one, or 34 for 32 of them; padding
		// may be added.
		least := plan.BlockSize * m.HeadDim * 2 * 2
		switch kv {
		case backend.KVQ8_0:
			least = least / 64 * 34
		case backend.KVFP8:
			least /= 2
		}
		if n := dev.PageBytes(); n < least {
			t.Errorf("a page has %d bytes, its keys and values have %d", n, least)
		}
	}
}

func (s *suite) onePool(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	dev := s.load(t, m, src, s.o.KV[0])
	d := drive(t, dev, 4)
	if second, err := dev.NewPool(4); err == nil {
		t.Errorf("a second pool was made beside the first; closing it: %v", second.Close())
	}
	d.close()
	drive(t, dev, 8).close()
}

// refusals hands over batches that would read or write outside of what the
// device has. Each must be refused, and none may change what follows.
func (s *suite) refusals(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	kv := s.o.KV[0]
	dev := s.load(t, m, src, kv)
	l := plan.NewDense(m.Shape()).Bind(100)
	prompt := tokens(100, m.Vocab, 17)
	want := s.alone(t, dev, l, prompt, 50)
	d := drive(t, dev, l.PeakPages(0, 100, 50))
	x := d.start(0, l, prompt)
	d.step(chunk{x, 50})
	base := func() *backend.Batch {
		return &backend.Batch{
			Tokens: prompt[50:51], Seqs: []backend.Seq{{Len: 1, Start: 50, Layout: l}}, Rows: []backend.Row{{KeepLogits: true}},
		}
	}
	for name, spoil := range map[string]func(*backend.Batch){
		"too many tokens": func(b *backend.Batch) {
			b.Tokens = make([]int32, maxBatchTokens+1)
			b.Seqs[0].Len = len(b.Tokens)
		},
		"a token beyond the vocabulary": func(b *backend.Batch) { b.Tokens = []int32{int32(m.Vocab)} },
		"a negative token":              func(b *backend.Batch) { b.Tokens = []int32{-1} },
		"a slot out of range":           func(b *backend.Batch) { b.Seqs[0].Slot = maxSequences },
		"a sequence beyond the tokens":  func(b *backend.Batch) { b.Seqs[0].Len = 2 },
		"a page out of range": func(b *backend.Batch) {
			b.Deltas = []backend.TableDelta{{Page: int32(d.pages.Pages())}}
		},
		"a head out of range": func(b *backend.Batch) {
			b.Deltas = []backend.TableDelta{{Head: int32(l.Heads())}}
		},
		"a row of another sequence": func(b *backend.Batch) { b.Rows[0].Seq = 1 },
		"a row beyond the sequence": func(b *backend.Batch) { b.Rows[0].Token = 1 },
	} {
		b := base()
		spoil(b)
		if _, err := dev.Step(b); err == nil {
			t.Errorf("%s was not refused", name)
		}
	}
	s.same(t, "after refusals", d.finish(x, 50), want, kv, weights.F32, m.Layers)
	d.close()
}
