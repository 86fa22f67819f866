//go:build cuda

package cuda

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/internal/fakecuda"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
	"github.com/moaserve/moaserve/runtime/weights"
)

func testOptions() backend.Options {
	return backend.Options{KV: backend.KVBF16, MaxBatchTokens: 64, MaxSequences: 4}
}

// onFake skips the test on a real GPU and undoes what it tells the fake driver.
func onFake(t *testing.T) {
	t.Helper()
	if !fakecuda.Present() {
		t.Skip("needs the fake driver")
	}
	fakecuda.Reset()
	t.Cleanup(fakecuda.Reset)
}

// small is a loaded model with a pool of pages for one dense sequence of 256
// tokens, all of them entered in slot 0.
type small struct {
	*testing.T
	model  *model.Model
	dev    *Device
	layout *plan.Layout
	deltas []backend.TableDelta // to be sent with the first batch
}

func newSmall(t *testing.T, layers int) *small {
	t.Helper()
	m, src := modeltest.New(t, modeltest.Options{Layers: layers})
	dev, err := New().Load(t.Context(), m, src, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	s := &small{T: t, model: m, dev: dev.(*Device), layout: plan.NewDense(m.Shape()).Bind(256)}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := dev.NewPool(4 * s.layout.Heads()); err != nil {
		t.Fatal(err)
	}
	for h := range s.layout.Heads() {
		for block := range 4 {
			s.deltas = append(s.deltas, backend.TableDelta{Head: int32(h), Block: int32(block), Page: int32(4*h + block)})
		}
	}
	return s
}

// batch is n tokens from position start, with the logits of the last one.
func (s *small) batch(start, n int) *backend.Batch {
	b := &backend.Batch{
		Tokens: make([]int32, n), Seqs: []backend.Seq{{Len: n, Start: start, Layout: s.layout}}, Deltas: s.deltas,
		Rows: []backend.Row{{Token: n - 1, Sampler: sample.New(sample.Params{}, nil), KeepLogits: true}},
	}
	for i := range b.Tokens {
		b.Tokens[i] = int32((start + i) * 37 % s.model.Vocab)
	}
	s.deltas = nil
	return b
}

func (s *small) step(b *backend.Batch) []float32 {
	s.Helper()
	r, err := s.dev.Step(b)
	if err != nil {
		s.Fatal(err)
	}
	return slices.Clone(r.Logits[0])
}

func TestStepsAreReplayedFromTheSecondOn(t *testing.T) {
	onFake(t)
	s := newSmall(t, 2)
	s.step(s.batch(0, 10))
	for i := range 6 {
		launches, graphs := fakecuda.Count("cuLaunchKernelEx"), fakecuda.Count("cuGraphLaunch")
		s.step(s.batch(10+i, 1))
		launches, graphs = fakecuda.Count("cuLaunchKernelEx")-launches, fakecuda.Count("cuGraphLaunch")-graphs
		switch {
		case i == 0 && (launches == 0 || graphs != 0):
			t.Errorf("the first decode step: %d launches, %d graphs", launches, graphs)
		case i == 1 && (launches == 0 || graphs != 1):
			t.Errorf("the second decode step, which records: %d launches, %d graphs", launches, graphs)
		case i > 1 && (launches != 0 || graphs != 1):
			t.Errorf("decode step %d: %d launches, %d graphs", i, launches, graphs)
		}
	}
}

// The fake driver looks whether a workspace of the decode attention is clean; on a
// GPU a dirty one gives wrong numbers or none.
func TestWorkspacesAreCleanWhateverTheNumberOfLayers(t *testing.T) {
	for layers := 1; layers <= 5; layers++ {
		s := newSmall(t, layers)
		whole := s.step(s.batch(0, 12))
		s.step(s.batch(0, 9))
		var last []float32
		for i := range 3 {
			last = s.step(s.batch(9+i, 1))
		}
		var diff, size float64
		for i, x := range whole {
			d := float64(last[i] - x)
			diff, size = diff+d*d, size+float64(x)*float64(x)
		}
		if !(diff < 0.02*0.02*size) { // far above bf16's rounding in 5 layers
			t.Errorf("%d layers: one by one, tokens are off by %.3f", layers, math.Sqrt(diff/size))
		}
	}
}

func TestAWarmDeviceRecordsNothingMore(t *testing.T) {
	onFake(t)
	s := newSmall(t, 2)
	want := s.step(s.batch(0, 10))
	s = newSmall(t, 2)
	if err := s.dev.Warm(); err != nil {
		t.Fatal(err)
	}
	if got := s.step(s.batch(0, 10)); !slices.Equal(got, want) {
		t.Error("a warm device answers otherwise")
	}
	for _, p := range []sample.Params{{}, {Temperature: 1}, {RepetitionPenalty: 1.1, Logprobs: true}} {
		launches := fakecuda.Count("cuLaunchKernelEx")
		b := s.batch(10, 1)
		b.Rows[0] = backend.Row{Sampler: sample.New(p, nil)}
		if _, err := s.dev.Step(b); err != nil {
			t.Fatal(err)
		}
		if n := fakecuda.Count("cuLaunchKernelEx") - launches; n != 0 {
			t.Errorf("the first decode step after the warm-up launched %d kernels one by one", n)
		}
	}
}

func TestAFaultIsRecognisedAndFinal(t *testing.T) {
	onFake(t)
	s := newSmall(t, 2)
	s.step(s.batch(0, 10))
	fakecuda.Fail("kernel:rope_append", 1, 700)
	_, err := s.dev.Step(s.batch(10, 1))
	if !errors.Is(err, backend.ErrDeviceLost) {
		t.Fatalf("an illegal address is not told: %v", err)
	}
	fakecuda.Reset() // the device does not ask again
	if _, again := s.dev.Step(s.batch(10, 1)); !errors.Is(again, backend.ErrDeviceLost) {
		t.Errorf("the next step: %v", again)
	}
}

func TestAFailedStepDoesNotSpoilTheNext(t *testing.T) {
	onFake(t)
	s := newSmall(t, 2)
	first := s.step(s.batch(0, 10))
	want := s.step(s.batch(10, 1))
	for _, call := range []string{"cuLaunchKernelEx", "kernel:decode_attention_64", "kernel:product_bf16_8", "cuMemcpyHtoDAsync_v2", "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch"} {
		if err := s.dev.dropGraphs(); err != nil {
			t.Fatal(err)
		}
		if call[:3] == "cuS" || call[:3] == "cuG" {
			s.step(s.batch(10, 1)) // so that the next one records
		}
		fakecuda.Fail(call, 0, 1)
		if _, err := s.dev.Step(s.batch(10, 1)); err == nil || errors.Is(err, backend.ErrDeviceLost) {
			t.Errorf("%s fails: %v", call, err)
		}
		for i := range 3 {
			if got := s.step(s.batch(10, 1)); !slices.Equal(got, want) {
				t.Errorf("after %s failed, step %d answers otherwise", call, i)
			}
		}
	}
	if got := s.step(s.batch(0, 10)); !slices.Equal(got, first) {
		t.Errorf("the prompt is answered otherwise at the end")
	}
}

func TestFailedLoadsLeaveNothing(t *testing.T) {
	onFake(t)
	m, src := modeltest.New(t, modeltest.Options{})
	for _, call := range []string{
		"cuDeviceGet", "cuCtxCreate_v2", "cuCtxSetCurrent", "cuStreamCreate", "cuModuleLoadData", "cuModuleGetFunction", "cublasLtCreate",
		"cuMemAlloc_v2", "cuMemHostAlloc", "cuMemcpyHtoDAsync_v2", "cuMemsetD8Async", "cuStreamSynchronize",
	} {
		failures := 0
		for skip := 0; ; skip++ {
			fakecuda.Reset()
			fakecuda.Fail(call, skip, 2)
			dev, err := New().Load(t.Context(), m, src, testOptions())
			if err == nil {
				fakecuda.Reset()
				if err := dev.Close(); err != nil {
					t.Error(err)
				}
				break
			}
			failures++
			if skip > 200 {
				skip += 50 // a tensor a call: some of them do
			}
			if n := fakecuda.Count("memory"); n != 0 {
				t.Fatalf("%s failed after %d times: %d allocations are left", call, skip, n)
			}
		}
		if failures == 0 {
			t.Errorf("%s is not called", call)
		}
	}
	if n := fakecuda.Count("memory"); n != 0 {
		t.Errorf("%d allocations are left", n)
	}
}

func TestAPoolBeyondTheMemoryIsRefusedWithFigures(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{})
	dev, err := New().Load(t.Context(), m, src, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	if _, err := dev.NewPool(1 << 30); !errors.Is(err, cudadrv.ErrOutOfMemory) {
		t.Errorf("NewPool: %v", err)
	}
	pool, err := dev.NewPool(8)
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if _, err := dev.NewPool(0); err == nil {
		t.Errorf("a pool without pages was made")
	}
}

// A sequence that comes back enters everything at once, and entries may be
// repeated: the last one counts.
func TestAnyNumberOfDeltasIsTaken(t *testing.T) {
	s := newSmall(t, 2)
	want := s.step(s.batch(0, 10))
	b := s.batch(0, 10)
	heads := s.layout.Heads()
	for i := range 3*deltaPiece + 5 {
		h := i % heads
		b.Deltas = append(b.Deltas, backend.TableDelta{Head: int32(h), Block: int32(i / heads % 4), Page: 3})
	}
	for h := range heads {
		for block := range 4 {
			b.Deltas = append(b.Deltas, backend.TableDelta{Head: int32(h), Block: int32(block), Page: int32(4*h + block)})
		}
	}
	if got := s.step(b); !slices.Equal(got, want) {
		t.Errorf("the answer depends on how pages were entered")
	}
}

func TestWhatWasNeverEnteredIsNotSeen(t *testing.T) {
	s := newSmall(t, 2)
	whole := s.deltas
	for name, keep := range map[string]func(backend.TableDelta) bool{
		"nothing":    func(backend.TableDelta) bool { return false },
		"no block 0": func(e backend.TableDelta) bool { return e.Block != 0 },
		"a hole":     func(e backend.TableDelta) bool { return e.Head != 1 || e.Block != 1 },
	} {
		s.dev.tables = backend.NewPageTables(4, s.layout.Heads())
		s.deltas = nil
		for _, e := range whole {
			if keep(e) {
				s.deltas = append(s.deltas, e)
			}
		}
		if _, err := s.dev.Step(s.batch(150, 2)); err == nil {
			t.Errorf("%s entered: the step was computed", name)
		}
	}
	b := s.batch(255, 1)
	b.Seqs[0].Start = s.model.Context
	if _, err := s.dev.Step(b); err == nil {
		t.Errorf("a position beyond the context was computed")
	}
}

func TestModelsThatNoKernelTakesAreRefused(t *testing.T) {
	for name, o := range map[string]modeltest.Options{
		"9 query heads a KV head": {Heads: 9, KVHeads: 1},
		"head dimension 264":      {HeadDim: 264},
		"head dimension 20":       {HeadDim: 20},
		"hidden 60":               {Hidden: 60},
	} {
		m, src := modeltest.New(t, o)
		if _, err := New().Load(t.Context(), m, src, testOptions()); !errors.Is(err, backend.ErrNotSupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, src := modeltest.New(t, modeltest.Options{})
	o := testOptions()
	o.KV = backend.KVF16
	if _, err := New().Load(t.Context(), m, src, o); !errors.Is(err, backend.ErrNotSupported) {
		t.Errorf("an f16 cache: %v", err)
	}
}

func TestBucketsHoldTheirRows(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 2, 3: 4, 33: 64, 64: 64, 65: 128, 128: 128, 129: 192, 576: 576} {
		if got := bucket(n); got != want {
			t.Errorf("%d rows: a bucket of %d, want %d", n, got, want)
		}
	}
}

func TestConversionToBF16RoundsEveryType(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{Hidden: 256, FFN: 512, Type: weights.Q4_K, Embedding: weights.BF16})
	for _, r := range []model.Role{model.FFNGate, model.TokenEmbedding} {
		tensor, err := m.Tensor(src, r, 0)
		if err != nil {
			t.Fatal(err)
		}
		n := tensor.Elems()
		want := make([]float32, n)
		if err := weights.Dequantize(want, tensor.Type, tensor.Data); err != nil {
			t.Fatal(err)
		}
		got := make([]uint16, n/2)
		if err := toBF16(got, tensor, n/2); err != nil {
			t.Fatal(err)
		}
		for i, x := range got {
			if x != weights.Float32ToBF16(want[n/2+i]) {
				t.Fatalf("%v: element %d is %#x, want %v", r, n/2+i, x, want[n/2+i])
			}
		}
	}
}
