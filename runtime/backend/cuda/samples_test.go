//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/sample"
)

// chooser lets a device choose tokens from logits that a test makes up.
type chooser struct {
	*testing.T
	dev   *Device
	rows  int
	vocab int
}

func newChooser(t *testing.T, vocab int) *chooser {
	t.Helper()
	m, src := modeltest.New(t, modeltest.Options{Layers: 1, Vocab: vocab})
	dev, err := New().Load(t.Context(), m, src, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	d := dev.(*Device)
	return &chooser{t, d, d.buffers.logitRows, vocab}
}

// begin lets step number n choose tokens for rows, each of a sequence of its own. The
// latest tokens of the sequences are those of last, and named: their samplers have not
// been told.
func (c *chooser) begin(n int, rows []backend.Row, logits [][]float32, last []int32) *flight {
	c.Helper()
	f, d := c.dev.flights[n%2], c.dev
	leave, err := d.ctx.Enter()
	if err != nil {
		c.Fatal(err)
	}
	defer leave()
	all, err := d.hostLogits.download(d, 0, len(rows)) // for the memory: it is uploaded below
	if err != nil {
		c.Fatal(err)
	}
	b := &backend.Batch{Rows: rows}
	d.order.firstRow = d.order.firstRow[:0]
	for i := range rows {
		b.Seqs = append(b.Seqs, backend.Seq{Offset: i, Len: 1})
		b.Tokens = append(b.Tokens, 0)
		if last != nil {
			b.Tokens[i] = backend.ChoiceOf(i)
			f.input.tokens[i] = last[i]
		}
		d.order.firstRow = append(d.order.firstRow, int32(i))
		copy(all[i*c.vocab:], logits[i])
	}
	f.rows = rows
	f.input.nameRows(d, b, rows, true)
	f.output.begin(len(rows))
	if err := errors.Join(
		d.stream.Upload(cudadrv.Ptr(d.buffers.logits), d.hostLogits.pinned, 0, 4*len(rows)*c.vocab),
		f.input.upload(d),
		launch(d, &cudakernels.Sample{
			Logits: d.buffers.logits, Params: d.inputs.at(d.inputs.samples), Tokens: d.buffers.ids, Choices: d.buffers.choices,
			Rows: int64(len(rows)), Vocab: int64(c.vocab),
		}, false),
		f.output.download(d, len(rows)),
		d.stream.Wait(),
	); err != nil {
		c.Fatal(err)
	}
	return f
}

// end tells the samplers what was chosen.
func (c *chooser) end(f *flight) *backend.Result {
	c.Helper()
	leave, err := c.dev.ctx.Enter()
	if err != nil {
		c.Fatal(err)
	}
	defer leave()
	if err := f.output.answer(c.dev, f.rows, f.input.samples.onHost, 0); err != nil {
		c.Fatal(err)
	}
	return &f.output.result
}

// anyParams draws parameters that use a part of a sampler each time.
func anyParams(r *rand.Rand, vocab int) sample.Params {
	one := func() bool { return r.IntN(2) == 0 }
	token := func() int32 { return r.Int32N(int32(vocab)) }
	p := sample.Params{Seed: r.Uint64()}
	if r.IntN(4) > 0 {
		p.Temperature = 0.2 + 2*r.Float32()
	}
	if one() {
		p.TopP = r.Float32()
	}
	if r.IntN(4) == 0 {
		p.MinP = r.Float32() / 10
	}
	if one() {
		p.TopK = 1 + r.IntN(min(vocab, 3000))
	}
	if one() {
		p.RepetitionPenalty = 0.5 + r.Float32()
	}
	if one() {
		p.PresencePenalty, p.FrequencyPenalty = 4*r.Float32()-2, 4*r.Float32()-2
	}
	if one() {
		p.LogitBias = map[int32]float32{}
		for range r.IntN(20) {
			p.LogitBias[token()] = 10 * r.Float32()
		}
		p.LogitBias[int32(vocab)] = 100 // beyond the vocabulary
	}
	if one() {
		p.MinTokens = r.IntN(5)
		for range r.IntN(10) {
			p.Stop = append(p.Stop, token())
		}
	}
	if one() {
		p.Logprobs, p.TopLogprobs = true, r.IntN(sample.MaxTopLogprobs+1)
	}
	return p
}

// twins are two samplers of a sequence: the one of the row, whose tokens the device
// chooses, and one that chooses itself.
type twins struct {
	tested, oracle *sample.Sampler
	params         sample.Params
	generated      []int32
}

func newTwins(r *rand.Rand, vocab int) *twins {
	prompt := make([]int32, r.IntN(300))
	for i := range prompt {
		prompt[i] = r.Int32N(int32(vocab))
	}
	p := anyParams(r, vocab)
	return &twins{tested: sample.New(p, prompt), oracle: sample.New(p, prompt), params: p}
}

// anyLogits are rough on purpose in some rows: with ties, without numbers, with few
// tokens.
func anyLogits(r *rand.Rand, vocab int) []float32 {
	x := make([]float32, vocab)
	kind := r.IntN(10)
	for i := range x {
		x[i] = float32(r.NormFloat64() * 3)
		switch {
		case kind == 0:
			x[i] = float32(math.Round(float64(x[i])))
		case kind == 1 && r.IntN(3) > 0, kind == 2 && r.IntN(vocab) > 3:
			x[i] = float32(math.Inf(-1))
		case kind == 3:
			x[i] = float32(math.NaN())
		}
	}
	return x
}

func anyMask(r *rand.Rand, vocab int) []uint32 {
	if r.IntN(2) == 0 {
		return nil
	}
	mask := make([]uint32, max((vocab+31)/32-r.IntN(2), 0))
	for i := range mask {
		mask[i] = r.Uint32()
		if r.IntN(2) == 0 {
			mask[i] &= r.Uint32() & r.Uint32()
		}
	}
	return mask
}

// same compares a choice with the oracle's. Log-probabilities are sums of 32-bit
// exponentials over the vocabulary; 1e-4 is above their error.
func same(got, want sample.Choice) error {
	near := func(a, b float32) bool { return math.Abs(float64(a-b)) <= 1e-4 }
	ok := got.ID == want.ID && near(got.Logprob, want.Logprob) && len(got.Top) == len(want.Top)
	for i := 0; ok && i < len(want.Top); i++ {
		ok = got.Top[i].ID == want.Top[i].ID && near(got.Top[i].Logprob, want.Top[i].Logprob)
	}
	if !ok {
		return fmt.Errorf("%+v, want %+v", got, want)
	}
	return nil
}

// The same token for the same seed, whatever the parameters: the weights are the same
// numbers, so only a draw or a cut-off within the rounding of a sum can differ, once
// in about 1e13 on a GPU and once in 1e6 where plain C computes the weights.
func TestTheDeviceChoosesLikeASampler(t *testing.T) {
	for _, vocab := range []int{32, 257, 1000, 40000} {
		t.Run(fmt.Sprint("vocabulary ", vocab), func(t *testing.T) {
			c := newChooser(t, vocab)
			r := rand.New(rand.NewPCG(uint64(vocab), 1))
			for range max(2, 4000/vocab) {
				c.compare(r, 6)
			}
		})
	}
}

// compare lets sequences of any parameters generate a few tokens, each step begun
// before the samplers are told the one before.
func (c *chooser) compare(r *rand.Rand, steps int) {
	seqs := make([]*twins, c.rows)
	for i := range seqs {
		seqs[i] = newTwins(r, c.vocab)
	}
	var before *flight
	var want [2][]sample.Choice
	var last []int32
	for n := range steps {
		rows, logits := make([]backend.Row, c.rows), make([][]float32, c.rows)
		want[n%2] = make([]sample.Choice, c.rows)
		for i, s := range seqs {
			logits[i] = anyLogits(r, c.vocab)
			rows[i] = backend.Row{Seq: i, Sampler: s.tested, Mask: anyMask(r, c.vocab)}
			want[n%2][i] = s.oracle.Sample(slices.Clone(logits[i]), rows[i].Mask)
		}
		f := c.begin(n, rows, logits, last)
		if slices.Contains(f.input.samples.onHost, true) {
			c.Fatalf("step %d leaves rows to the host", n)
		}
		last = nil
		for i := range rows {
			last = append(last, f.output.choices[i].ID)
		}
		if before != nil {
			c.check(before, seqs, want[(n+1)%2])
		}
		before = f
	}
	c.check(before, seqs, want[(steps+1)%2])
}

func (c *chooser) check(f *flight, seqs []*twins, want []sample.Choice) {
	c.Helper()
	r := c.end(f)
	for i, w := range want {
		if err := same(r.Choices[i], w); err != nil {
			c.Fatalf("%+v, after %v: chose %v", seqs[i].params, seqs[i].generated, err)
		}
		seqs[i].generated = append(seqs[i].generated, w.ID)
	}
}

// Rows whose adjustments find no room are sampled from logits that are none the worse
// for what other rows did to theirs.
func TestRowsBeyondTheRoomAreSampledByTheHost(t *testing.T) {
	c := newChooser(t, 257)
	const room = 150
	for _, f := range c.dev.flights {
		f.input.samples.adjustments = f.input.samples.adjustments[:room]
	}
	r := rand.New(rand.NewPCG(1, 2))
	p := sample.Params{Temperature: 1, RepetitionPenalty: 1.2, Seed: 3, Logprobs: true, TopLogprobs: 3}
	prompt := make([]int32, 100)
	for i := range prompt {
		prompt[i] = int32(i)
	}
	var rows []backend.Row
	var logits [][]float32
	var want []sample.Choice
	for i, prompt := range [][]int32{prompt, prompt, prompt[:40], nil} {
		logits = append(logits, anyLogits(r, c.vocab))
		rows = append(rows, backend.Row{Seq: i, Sampler: sample.New(p, prompt)})
		want = append(want, sample.New(p, prompt).Sample(slices.Clone(logits[i]), nil))
	}
	f := c.begin(0, rows, logits, nil)
	if got := f.input.samples.onHost; !slices.Equal(got, []bool{false, true, false, false}) {
		t.Errorf("left to the host: %v", got)
	}
	for i, got := range c.end(f).Choices {
		if err := same(got, want[i]); err != nil {
			t.Errorf("row %d: %v", i, err)
		}
	}
}

func TestTheDeviceKeepsTheChoicesThatItMakes(t *testing.T) {
	s := newSmall(t, 2)
	b := s.batch(0, 10)
	if onDevice, err := s.dev.Begin(b); err != nil || onDevice {
		t.Errorf("a step whose logits are kept: %t, %v", onDevice, err)
	}
	if _, err := s.dev.End(); err != nil {
		t.Fatal(err)
	}
	b = s.batch(10, 1)
	b.Rows[0].KeepLogits = false
	b.Rows[0].Mask = []uint32{1 << 5}
	b.Rows[0].Sampler = sample.New(sample.Params{
		Temperature: 1, RepetitionPenalty: 1.1, LogitBias: map[int32]float32{3: 1}, MinTokens: 1, Stop: []int32{4}, Logprobs: true, TopLogprobs: 3,
	}, []int32{1, 2})
	if onDevice, err := s.dev.Begin(b); err != nil || !onDevice {
		t.Errorf("a step that uses all of a sampler: %t, %v", onDevice, err)
	}
	if r, err := s.dev.End(); err != nil || r.Choices[0].ID != 5 || len(r.Choices[0].Top) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}
