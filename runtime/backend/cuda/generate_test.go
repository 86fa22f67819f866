//go:build cuda

package cuda

import (
	"errors"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/internal/fakecuda"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/synthetic"
	"github.com/moaserve/moaserve/runtime/weights"
)

// heap is memory of the collector.
type heap struct{}

func (heap) Alloc(n int) ([]byte, error) { return make([]byte, n), nil }
func (heap) Free() error                 { return nil }

// stored shows a materialised source as one that was read from a file.
type stored struct{ *synthetic.Source }

func (s stored) Tensor(name string) (weights.Tensor, bool) {
	t, ok := s.Source.Tensor(name)
	t.Generated = nil
	return t, ok
}

func openTiny(t *testing.T) *synthetic.Model {
	t.Helper()
	m, err := synthetic.Open("synthetic:tiny", 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The device makes the very bits that the host makes, so nothing that follows differs.
func TestGeneratedWeightsAreThoseOfTheHost(t *testing.T) {
	m := openTiny(t)
	o := backend.Options{MaxBatchTokens: 64, MaxSequences: 4, KV: backend.KVBF16}
	l := plan.NewDense(m.Shape()).Bind(40)
	tokens := make([]int32, 40)
	for i := range tokens {
		tokens[i] = int32(i * 13 % m.Vocab)
	}
	got := logitsOf(t, New(), m.Model, m.Source, o, l, tokens)
	if err := m.Source.Materialise(t.Context(), heap{}); err != nil {
		t.Fatal(err)
	}
	want := logitsOf(t, New(), m.Model, stored{m.Source}, o, l, tokens)
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Fatalf("the logits of token %d differ", i)
		}
	}
}

// Any part of a tensor can be made by itself.
func TestGenerateFillsTheElementsAskedFor(t *testing.T) {
	m := openTiny(t)
	dev, err := New().Load(t.Context(), m.Model, m.Source, backend.Options{MaxBatchTokens: 8, MaxSequences: 1, KV: backend.KVBF16})
	if err != nil {
		t.Fatal(err)
	}
	d := dev.(*Device)
	defer func() { _ = d.Close() }()
	leave, err := d.ctx.Enter()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	host, err := d.ctx.NewPinned(2 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Free() }()
	memory, err := d.ctx.Alloc(2 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Free() }()
	g := &weights.Generated{Key: 0xfedcba9876543210, Scale: 0.0271}
	for _, n := range []int{8, 1000, 4096} {
		err := errors.Join(
			d.stream.Fill(memory.Ptr(), 0, memory.Size()),
			d.generate(memory.Ptr(), g, 0, n),
			d.stream.Download(host, 0, memory.Ptr(), int(memory.Size())),
			d.stream.Wait(),
		)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]uint16, 4096)
		g.BF16(want[:n], 0)
		if got := cudadrv.PinnedSlice[uint16](host, 0, 4096); !slices.Equal(got, want) {
			t.Errorf("%d elements are not those of the host, or others changed", n)
		}
	}
	if err := d.generate(memory.Ptr(), g, 0, 12); !errors.Is(err, backend.ErrNotSupported) {
		t.Errorf("12 elements: %v", err)
	}
}

func TestWeightBytesAreThoseOfTheDevice(t *testing.T) {
	m := openTiny(t)
	dev, err := New().Load(t.Context(), m.Model, m.Source, backend.Options{MaxBatchTokens: 8, MaxSequences: 1, KV: backend.KVBF16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	want := int64(0)
	for _, name := range m.Source.Names() {
		x, _ := m.Source.Tensor(name)
		switch {
		case name == "model.embed_tokens.weight":
		case x.Generated != nil:
			want += 2 * int64(x.Elems())
		default: // a norm, in float32
			want += 4 * int64(x.Elems())
		}
	}
	const sequences = 3
	want += sequences * 2 * int64(m.Hidden)
	if got := dev.(backend.WeightReader).WeightBytes(sequences); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}

func TestReadBandwidthGivesItsMemoryBack(t *testing.T) {
	m := openTiny(t)
	dev, err := New().Load(t.Context(), m.Model, m.Source, backend.Options{MaxBatchTokens: 8, MaxSequences: 1, KV: backend.KVBF16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	free := dev.(*Device).FreeMemory()
	if fakecuda.Present() { // plain C would take its time
		fakecuda.Fail("cuMemAlloc_v2", 0, 2)
		defer fakecuda.Reset()
		if _, err := dev.(backend.BandwidthMeter).ReadBandwidth(); !errors.Is(err, cudadrv.ErrOutOfMemory) {
			t.Errorf("out of memory: %v", err)
		}
	} else if got, err := dev.(backend.BandwidthMeter).ReadBandwidth(); err != nil || got < 1e11 {
		// Ten times less than the slowest supported device has.
		t.Errorf("%v bytes a second (%v)", got, err)
	} else {
		t.Logf("%.0f GB/s", got/1e9)
	}
	if now := dev.(*Device).FreeMemory(); now != free {
		t.Errorf("%d bytes are free, before it were %d", now, free)
	}
}
