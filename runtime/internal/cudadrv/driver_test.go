//go:build cuda

package cudadrv

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"unsafe"

	"github.com/moaserve/moaserve/runtime/internal/fakecuda"
)

// open makes a context that is current until the test ends.
func open(t *testing.T) (*Context, *Stream) {
	t.Helper()
	c, err := NewContext(0)
	if err != nil {
		t.Fatal(err)
	}
	leave, err := c.Enter()
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		leave()
	})
	return c, s
}

func TestContextTellsTheDevice(t *testing.T) {
	c, _ := open(t)
	p := c.Properties()
	if p.Major < 7 || p.SMs < 1 || p.SharedPerBlock < 48<<10 || p.SharedPerSM < p.SharedPerBlock || p.Memory < 1<<30 || p.Name == "" {
		t.Errorf("%+v", p)
	}
	if free, err := c.Free(); err != nil || free <= 0 || free > p.Memory {
		t.Errorf("%d bytes are free: %v", free, err)
	}
}

func TestOutOfMemoryIsAnOrdinaryErrorWithFigures(t *testing.T) {
	c, _ := open(t)
	_, err := c.Alloc(1 << 45)
	if !errors.Is(err, ErrOutOfMemory) || !strings.Contains(err.Error(), "allocating 33554432.0 MiB") || !strings.Contains(err.Error(), "are free of") {
		t.Fatalf("Alloc of 32 TiB: %v", err)
	}
	m, err := c.Alloc(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Free(); err != nil {
		t.Error(err)
	}
}

func TestArenaHandsOutAlignedParts(t *testing.T) {
	c, _ := open(t)
	a := c.NewArena()
	var last, end Ptr
	for _, n := range []int64{1, 255, 256, 257, 30 << 20, 40 << 20, 100 << 20, 3} {
		p, err := a.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if p%256 != 0 || p >= last && p < end {
			t.Errorf("%d bytes at %#x, the part before is %#x to %#x", n, p, last, end)
		}
		last, end = p, p+Ptr(n)
	}
	if a.Used() < 170<<20 || a.Used() > 171<<20 {
		t.Errorf("%d bytes are in use", a.Used())
	}
	if err := a.Free(); err != nil {
		t.Error(err)
	}
}

func TestGraphsCopyWhatIsThereWhenTheyRun(t *testing.T) {
	c, s := open(t)
	m, err := c.Alloc(64)
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.NewPinned(64)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Capture(func() error {
		return errors.Join(s.Upload(m.Ptr(), h, 0, 8), s.Fill(m.Ptr()+8, 7, 8), s.Download(h, 32, m.Ptr(), 16))
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		binary.LittleEndian.PutUint64(h.Bytes(), i+100)
		if err := errors.Join(g.Launch(s), s.Wait()); err != nil {
			t.Fatal(err)
		}
		if got := PinnedSlice[uint64](h, 32, 2); got[0] != i+100 || got[1] != 0x0707070707070707 {
			t.Errorf("run %d: %d, %#x", i, got[0], got[1])
		}
	}
	failed := errors.New("not added")
	if _, err := s.Capture(func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("a failed capture: %v", err)
	}
	if err := errors.Join(g.Close(), m.Free(), h.Free()); err != nil {
		t.Error(err)
	}
}

func TestProductsAreRight(t *testing.T) {
	c, s := open(t)
	b, err := c.NewBLAS(s)
	if err != nil {
		t.Fatal(err)
	}
	b.Tune = true
	const m, n, k = 3, 16, 24
	h, err := c.NewPinned(4096)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Alloc(4096)
	if err != nil {
		t.Fatal(err)
	}
	// Small whole numbers: bfloat16 holds them and float32 their sums, exactly.
	value := func(i int) float32 { return float32(i*7%11 - 5) }
	operands := PinnedSlice[uint16](h, 0, (m+n)*k)
	for i := range operands {
		operands[i] = uint16(math.Float32bits(value(i)) >> 16)
	}
	p, err := b.NewProduct(ProductShape{M: m, N: n, K: k, F32: true})
	if err != nil {
		t.Fatal(err)
	}
	w, y := d.Ptr()+2*m*k, d.Ptr()+2048
	if err := errors.Join(s.Upload(d.Ptr(), h, 0, 2048), p.Run(w, d.Ptr(), y), s.Download(h, 2048, y, 4*m*n), s.Wait()); err != nil {
		t.Fatal(err)
	}
	if !p.Tuned() {
		t.Errorf("no algorithm was chosen")
	}
	for r := range m {
		for c := range n {
			want := float32(0)
			for i := range k {
				want += value(r*k+i) * value(m*k+c*k+i)
			}
			if got := PinnedSlice[float32](h, 2048, m*n)[r*n+c]; got != want {
				t.Errorf("y[%d][%d] = %v, want %v", r, c, got, want)
			}
		}
	}
	p.Close()
	if err := errors.Join(b.Close(), d.Free(), h.Free()); err != nil {
		t.Error(err)
	}
}

func TestErrorsNameKernelAndShape(t *testing.T) {
	if !fakecuda.Present() {
		t.Skip("needs the fake driver")
	}
	c, s := open(t)
	t.Cleanup(fakecuda.Reset)
	m, err := c.LoadModule("image")
	if err != nil {
		t.Fatal(err)
	}
	if f, err := m.Function("no such kernel"); f != nil || err != nil {
		t.Errorf("an unknown kernel: %v, %v", f, err)
	}
	f, err := m.Function("silu_mul")
	if err != nil || f == nil {
		t.Fatalf("silu_mul: %v, %v", f, err)
	}
	var args [4]uint64
	shape := Launch{Grid: [3]uint32{2, 3, 4}, Threads: 128}
	fakecuda.Fail("cuLaunchKernelEx", 0, 209)
	if err := f.Launch(s, shape, unsafe.Pointer(&args), len(args)); err == nil || !strings.Contains(err.Error(), "kernel silu_mul, grid [2 3 4], 128 threads") || !strings.Contains(err.Error(), "209") {
		t.Errorf("a failed launch: %v", err)
	}
	shape.Shared = 1 << 20
	if err := f.Launch(s, shape, unsafe.Pointer(&args), len(args)); err == nil || !strings.Contains(err.Error(), "kernel silu_mul with 1048576 bytes") {
		t.Errorf("a launch with too much shared memory: %v", err)
	}
	if err := f.Launch(s, shape, nil, 65); err == nil {
		t.Errorf("65 parameters were taken")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
