// Package backendtest holds what backends are tested with and what tests of the
// layers above use instead of one: the conformance suite that every
// implementation of package backend passes, and Fake, a device that computes
// nothing but notices every mistake of the scheduler that drives it.
package backendtest

import (
	"context"
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/weights"
)

var (
	_ backend.Backend = FakeBackend{}
	_ backend.Device  = (*Fake)(nil)
	_ backend.Pool    = (*fakePool)(nil)
	_ backend.PageIO  = (*fakePool)(nil)
)

// FakeBackend loads any model as a [Fake]; it reads no weights.
type FakeBackend struct{}

// Name returns "fake".
func (FakeBackend) Name() string { return "fake" }

// Load returns a Fake with the model's layers, KV heads and vocabulary.
func (FakeBackend) Load(_ context.Context, m *model.Model, _ weights.Source, o backend.Options) (backend.Device, error) {
	return NewFake(m.Layers, m.KVHeads, m.Vocab, o), nil
}

// Fake is a backend.Device without weights. In place of keys and values, its
// pages hold one hash a token, made from the token and from everything that the
// token's query sees: as in a real model, what is stored depends on all that was
// visible when it was computed, layer above layer. A wrong page, block, position
// or order therefore changes the tokens that come out, and [FakeAnswer] says what
// must come out.
//
// A block that a query sees but that was not entered for its slot, or whose page
// holds another block by now, is an error of Step that says so, and so is writing
// to a page that another slot writes to.
type Fake struct {
	layers, kvHeads, vocab int
	options                backend.Options

	// Before, when not nil, is called at the start of each Step. Its error is
	// Step's; it may block or panic.
	Before func(*backend.Batch) error
	// After is called with what Step is about to return.
	After func(*backend.Batch, *backend.Result, error)

	flush  func() // computes the steps under way, before pages are copied; may be nil
	pool   *fakePool
	tables []map[tableKey]int32 // by slot
	pages  []fakePage
	closed bool
}

type tableKey struct{ head, block int32 }

// fakePage is the content of one page: hashes of its tokens, and the slot that
// wrote them.
type fakePage struct {
	slot, head, block int32
	filled            int
	values            [plan.BlockSize]uint64
}

type fakePool struct {
	fake  *Fake
	pages int
}

// NewFake returns a device. Only MaxBatchTokens and MaxSequences of the options
// matter; both are enforced when they are not 0.
func NewFake(layers, kvHeads, vocab int, o backend.Options) *Fake {
	return &Fake{layers: layers, kvHeads: kvHeads, vocab: vocab, options: o}
}

// Describe names the device.
func (f *Fake) Describe() string { return "fake device for tests" }

// RowMultiple is 2, as on the CPU.
func (f *Fake) RowMultiple() int { return 2 }

// PageBytes is the size of one page: a hash a token, and what they belong to.
func (f *Fake) PageBytes() int { return plan.BlockSize*8 + fakeHeader }

// NewPool allocates the pages.
func (f *Fake) NewPool(pages int) (backend.Pool, error) {
	if f.pool != nil {
		return nil, errors.New("fake: the device has a pool already")
	}
	f.pages = make([]fakePage, pages)
	f.pool = &fakePool{fake: f, pages: pages}
	return f.pool, nil
}

func (p *fakePool) Pages() int { return p.pages }

func (p *fakePool) Close() error {
	p.fake.pool, p.fake.pages = nil, nil
	return nil
}

// Close ends the device.
func (f *Fake) Close() error {
	if f.closed {
		return errors.New("fake: closed twice")
	}
	f.closed = true
	return nil
}

// Step checks the batch, stores its tokens, and answers its rows.
func (f *Fake) Step(b *backend.Batch) (*backend.Result, error) {
	if f.Before != nil {
		if err := f.Before(b); err != nil {
			return nil, err
		}
	}
	r, err := f.step(b)
	if f.After != nil {
		f.After(b, r, err)
	}
	return r, err
}

func (f *Fake) step(b *backend.Batch) (*backend.Result, error) {
	if err := f.check(b); err != nil {
		return nil, err
	}
	for _, d := range b.Deltas {
		for int(d.Slot) >= len(f.tables) {
			f.tables = append(f.tables, make(map[tableKey]int32))
		}
		f.tables[d.Slot][tableKey{d.Head, d.Block}] = d.Page
	}
	states := make([][]uint64, len(b.Seqs))
	for i, s := range b.Seqs {
		states[i] = make([]uint64, s.Len)
		for t := range s.Len {
			states[i][t] = mix(0, uint64(b.Tokens[s.Offset+t]))
		}
	}
	// As on a real device, a layer first stores the keys and values of all new
	// tokens and then lets all queries look: a page that is taken from one
	// sequence and given to another within a step is seen to be gone.
	for layer := range f.layers {
		for i, s := range b.Seqs {
			if err := f.store(s, layer, states[i]); err != nil {
				return nil, err
			}
		}
		for i, s := range b.Seqs {
			if err := f.attend(s, layer, states[i]); err != nil {
				return nil, err
			}
		}
	}
	r := &backend.Result{Choices: make([]sample.Choice, len(b.Rows)), Logits: make([][]float32, len(b.Rows))}
	for i, row := range b.Rows {
		logits := fakeLogits(states[row.Seq][row.Token], f.vocab)
		if row.KeepLogits {
			r.Logits[i] = append([]float32(nil), logits...)
		}
		if row.Sampler != nil {
			r.Choices[i] = row.Sampler.Sample(logits, row.Mask)
		}
	}
	return r, nil
}

// check refuses batches that break the contract of backend.Batch.
func (f *Fake) check(b *backend.Batch) error {
	switch {
	case f.closed || f.pool == nil:
		return errors.New("fake: Step without a pool")
	case len(b.Seqs) == 0:
		return errors.New("fake: empty batch")
	case f.options.MaxBatchTokens > 0 && len(b.Tokens) > f.options.MaxBatchTokens:
		return fmt.Errorf("fake: %d tokens in a batch of at most %d", len(b.Tokens), f.options.MaxBatchTokens)
	case f.options.MaxSequences > 0 && len(b.Seqs) > f.options.MaxSequences:
		return fmt.Errorf("fake: %d sequences in a batch of at most %d", len(b.Seqs), f.options.MaxSequences)
	}
	slots := make(map[int]bool)
	offset := 0
	for i, s := range b.Seqs {
		if s.Offset != offset || s.Len <= 0 {
			return fmt.Errorf("fake: sequence %d has tokens %d+%d, want them at %d", i, s.Offset, s.Len, offset)
		}
		offset += s.Len
		if slots[s.Slot] || s.Slot < 0 || f.options.MaxSequences > 0 && s.Slot >= f.options.MaxSequences {
			return fmt.Errorf("fake: slot %d of sequence %d is taken or out of range", s.Slot, i)
		}
		slots[s.Slot] = true
		if got, want := s.Layout.Heads(), f.layers*f.kvHeads; got != want {
			return fmt.Errorf("fake: the layout of sequence %d has %d heads, the model has %d", i, got, want)
		}
	}
	if offset != len(b.Tokens) {
		return fmt.Errorf("fake: the sequences cover %d of %d tokens", offset, len(b.Tokens))
	}
	for _, d := range b.Deltas {
		if d.Page < 0 || int(d.Page) >= len(f.pages) || int(d.Head) >= f.layers*f.kvHeads || d.Block < 0 || d.Slot < 0 {
			return fmt.Errorf("fake: bad delta %+v", d)
		}
	}
	for _, t := range b.Tokens {
		if t < 0 || int(t) >= f.vocab {
			return fmt.Errorf("fake: token %d of a vocabulary of %d", t, f.vocab)
		}
	}
	for i, r := range b.Rows {
		if r.Seq < 0 || r.Seq >= len(b.Seqs) || r.Token < 0 || r.Token >= b.Seqs[r.Seq].Len {
			return fmt.Errorf("fake: row %d is token %d of sequence %d", i, r.Token, r.Seq)
		}
	}
	return nil
}

// store writes the hashes of a sequence's new tokens to their pages.
func (f *Fake) store(s backend.Seq, layer int, states []uint64) error {
	for kvHead := range f.kvHeads {
		h := layer*f.kvHeads + kvHead
		for t, x := range states {
			pos := s.Start + t
			page, err := f.page(s, h, pos/plan.BlockSize)
			if err != nil {
				return fmt.Errorf("token %d: %w", pos, err)
			}
			p := &f.pages[page]
			at := pos % plan.BlockSize
			if at == 0 {
				*p = fakePage{slot: int32(s.Slot), head: int32(h), block: int32(pos / plan.BlockSize)}
			}
			if err := p.holds(h, pos/plan.BlockSize, at); err != nil {
				return fmt.Errorf("fake: token %d of slot %d, page %d: %w", pos, s.Slot, page, err)
			}
			if int(p.slot) != s.Slot || p.filled != at {
				return fmt.Errorf("fake: token %d of slot %d is to be written to page %d, which slot %d has filled to %d", pos, s.Slot, page, p.slot, p.filled)
			}
			p.values[at] = mix(x, uint64(h)+1)
			p.filled = at + 1
		}
	}
	return nil
}

// attend replaces each state by a hash of what its queries see.
func (f *Fake) attend(s backend.Seq, layer int, states []uint64) error {
	for t, x := range states {
		pos := s.Start + t
		q := pos / plan.BlockSize
		for kvHead := range f.kvHeads {
			h := layer*f.kvHeads + kvHead
			for block := 0; block <= q; block++ {
				if block == 1 {
					block = max(1, s.Layout.Start(h, q))
				}
				page, err := f.page(s, h, block)
				if err != nil {
					return fmt.Errorf("query %d: %w", pos, err)
				}
				p := &f.pages[page]
				n := min(plan.BlockSize, pos-block*plan.BlockSize+1)
				if err := p.holds(h, block, n); err != nil {
					return fmt.Errorf("fake: query %d of slot %d, page %d: %w", pos, s.Slot, page, err)
				}
				for _, v := range p.values[:n] {
					x = mix(x, v)
				}
			}
		}
		states[t] = x
	}
	return nil
}

func (f *Fake) page(s backend.Seq, h, block int) (int32, error) {
	if s.Slot < len(f.tables) {
		if page, ok := f.tables[s.Slot][tableKey{int32(h), int32(block)}]; ok {
			return page, nil
		}
	}
	return 0, fmt.Errorf("fake: block %d of head %d was never entered for slot %d", block, h, s.Slot)
}

// holds says whether the page still has the first n tokens of that block. Full
// pages may be shared; that they are of the right text shows in the answer.
func (p *fakePage) holds(h, block, n int) error {
	if int(p.head) != h || int(p.block) != block || p.filled < n {
		return fmt.Errorf("wanted %d tokens of block %d of head %d, it holds %d tokens of block %d of head %d",
			n, block, h, p.filled, p.block, p.head)
	}
	return nil
}

// FakeAnswer computes what a [Fake] generates for a prompt under a layout,
// without pages, chunks and batches: it keeps every token of every head and
// masks by the layout. It stops after maxTokens tokens or with the first of stop.
func FakeAnswer(layers, kvHeads, vocab int, l *plan.Layout, prompt []int32, s *sample.Sampler, maxTokens int, stop []int32) []int32 {
	past := make([][]uint64, layers*kvHeads)
	var out []int32
	for pos := 0; ; pos++ {
		var token int32
		if pos < len(prompt) {
			token = prompt[pos]
		} else {
			token = out[pos-len(prompt)]
		}
		x := mix(0, uint64(token))
		q := pos / plan.BlockSize
		for layer := range layers {
			own := x
			for kvHead := range kvHeads {
				h := layer*kvHeads + kvHead
				past[h] = append(past[h], mix(own, uint64(h)+1))
				for i, v := range past[h] {
					if b := i / plan.BlockSize; b == 0 || b >= l.Start(h, q) {
						x = mix(x, v)
					}
				}
			}
		}
		if pos < len(prompt)-1 {
			continue
		}
		id := s.Sample(fakeLogits(x, vocab), nil).ID
		out = append(out, id)
		if len(out) == maxTokens {
			return out
		}
		for _, end := range stop {
			if id == end {
				return out
			}
		}
	}
}

// fakeLogits spreads a hash over the vocabulary.
func fakeLogits(x uint64, vocab int) []float32 {
	logits := make([]float32, vocab)
	for i := range logits {
		x = mix(x, uint64(i))
		logits[i] = float32(x>>40) / (1 << 22) // 0 to 4: some tokens are likelier
	}
	return logits
}

// mix is one round of a hash whose result depends on the order of its inputs
// (the finaliser of MurmurHash3).
func mix(x, v uint64) uint64 {
	x = (x ^ v) + 0x9e3779b97f4a7c15
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	return x ^ x>>33
}
