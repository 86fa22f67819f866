package backendtest

import (
	"math/rand/v2"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// What the suite loads its devices for. A batch of 160 tokens is no multiple of
// a block, so that long prompts are cut in awkward places, too.
const (
	maxBatchTokens = 160
	maxSequences   = 6
)

// driver runs sequences on a device as an engine would, but in the chunks and
// batches that a test asks for.
type driver struct {
	testing.TB
	dev   backend.Device
	pool  backend.Pool
	pages *kv.Pool
}

// sequence is a sequence of a driver.
type sequence struct {
	slot   int
	kv     *kv.Sequence
	layout *plan.Layout
	tokens []int32
	logits [][]float32 // of the tokens computed so far
	// unknown: the device has not been told of the pages it continues.
	unknown bool
}

// chunk asks for the next n tokens of a sequence.
type chunk struct {
	seq *sequence
	n   int
}

// load loads a model.
func (s *suite) load(t testing.TB, m *model.Model, src weights.Source, kvType backend.KVType) backend.Device {
	t.Helper()
	o := s.o.Load
	o.KV, o.MaxBatchTokens, o.MaxSequences = kvType, maxBatchTokens, maxSequences
	dev, err := s.backend.Load(t.Context(), m, src, o)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("Device.Close: %v", err)
		}
	})
	return dev
}

// drive allocates a pool of that many pages, handed out in an order of its own.
// The test closes it.
func drive(t testing.TB, dev backend.Device, pages int) *driver {
	t.Helper()
	pool, err := dev.NewPool(pages)
	if err != nil {
		t.Fatalf("NewPool(%d): %v", pages, err)
	}
	if pool.Pages() != pages {
		t.Fatalf("a pool of %d pages has %d", pages, pool.Pages())
	}
	d := &driver{TB: t, dev: dev, pool: pool, pages: kv.NewPool(pages)}
	for range pages {
		if _, err := d.pages.Acquire(); err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range rand.New(rand.NewPCG(uint64(pages), 1)).Perm(pages) {
		d.pages.Release(int32(page))
	}
	return d
}

// close frees the pool. All sequences must have given their pages back.
func (d *driver) close() {
	d.Helper()
	if n := d.pages.Used(); n != 0 {
		d.Fatalf("the test leaves %d pages in use", n)
	}
	if err := d.pool.Close(); err != nil {
		d.Fatalf("Pool.Close: %v", err)
	}
}

// start begins a sequence in a slot.
func (d *driver) start(slot int, l *plan.Layout, tokens []int32) *sequence {
	return &sequence{slot: slot, kv: kv.NewSequence(d.pages, l), layout: l, tokens: tokens}
}

// follow begins a sequence in a slot behind a prefix that others computed. It has no
// logits of that.
func (d *driver) follow(slot int, l *plan.Layout, tokens []int32, prefix *kv.Snapshot) *sequence {
	s := d.start(slot, l, tokens)
	s.kv.Continue(prefix)
	s.logits = make([][]float32, prefix.Tokens())
	s.unknown = true
	return s
}

// step computes one batch and keeps the logits of all its tokens.
func (d *driver) step(chunks ...chunk) {
	d.Helper()
	b := d.batch(chunks...)
	for i, c := range chunks {
		for t := range c.n {
			b.Rows = append(b.Rows, backend.Row{Seq: i, Token: t, KeepLogits: true})
		}
	}
	r := d.compute(b)
	row := 0
	for _, c := range chunks {
		for range c.n {
			c.seq.logits = append(c.seq.logits, append([]float32(nil), r.Logits[row]...))
			row++
		}
		c.seq.kv.Advance()
	}
}

// batch takes pages for the chunks and lays out a batch without rows.
func (d *driver) batch(chunks ...chunk) *backend.Batch {
	d.Helper()
	b := &backend.Batch{}
	for _, c := range chunks {
		from := c.seq.kv.Len()
		var deltas []kv.Delta
		if c.seq.unknown {
			deltas, c.seq.unknown = c.seq.kv.Entries(nil), false
		}
		deltas, err := c.seq.kv.Extend(from+c.n, deltas)
		if err != nil {
			d.Fatalf("the test's pool is too small: %v", err)
		}
		for _, x := range deltas {
			b.Deltas = append(b.Deltas, backend.TableDelta{Slot: int32(c.seq.slot), Head: x.Head, Block: x.Block, Page: x.Page})
		}
		b.Seqs = append(b.Seqs, backend.Seq{Slot: c.seq.slot, Offset: len(b.Tokens), Len: c.n, Start: from, Layout: c.seq.layout})
		b.Tokens = append(b.Tokens, c.seq.tokens[from:from+c.n]...)
	}
	return b
}

// compute runs a batch and checks the form of the result.
func (d *driver) compute(b *backend.Batch) *backend.Result {
	d.Helper()
	r, err := d.dev.Step(b)
	if err != nil {
		d.Fatalf("Step: %v", err)
	}
	if len(r.Choices) != len(b.Rows) || len(r.Logits) != len(b.Rows) {
		d.Fatalf("%d rows have %d choices and %d logits", len(b.Rows), len(r.Choices), len(r.Logits))
	}
	return r
}

// finish computes the rest of a sequence in chunks of at most n tokens, gives its
// pages back and returns the logits of all its tokens.
func (d *driver) finish(s *sequence, n int) [][]float32 {
	d.Helper()
	for left := len(s.tokens) - s.kv.Len(); left > 0; left = len(s.tokens) - s.kv.Len() {
		d.step(chunk{s, min(n, left)})
	}
	s.kv.Release()
	return s.logits
}

// alone runs one sequence on a pool of its own.
func (s *suite) alone(t testing.TB, dev backend.Device, l *plan.Layout, tokens []int32, n int) [][]float32 {
	t.Helper()
	d := drive(t, dev, l.PeakPages(0, len(tokens), n))
	logits := d.finish(d.start(0, l, tokens), n)
	d.close()
	return logits
}

// tokens returns n tokens below vocab that depend on seed.
func tokens(n, vocab int, seed uint64) []int32 {
	rng := rand.New(rand.NewPCG(seed, 2))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(rng.IntN(vocab))
	}
	return out
}
