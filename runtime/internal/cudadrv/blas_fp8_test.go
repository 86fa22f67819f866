//go:build cuda

package cudadrv

import (
	"errors"
	"math"
	"testing"
)

// Codes of whole numbers from 0 to 7: sums of their products are exact, and so are
// scales that are powers of two.
func TestFP8ProductsAreRight(t *testing.T) {
	wholes := [...]byte{0x00, 0x38, 0x40, 0x44, 0x48, 0x4a, 0x4c, 0x4e}
	c, s := open(t)
	b, err := c.NewBLAS(s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	b.Tune = true
	if !b.SupportsFP8() {
		t.Skip("neither this library nor this device multiplies e4m3 with a scale a row")
	}
	const n, k, most, stride = 48, 80, 33, 56
	h, err := c.NewPinned(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Alloc(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(h.Free(), d.Free()); err != nil {
			t.Error(err)
		}
	}()
	const wAt, xAt, wScalesAt, xScalesAt, yAt = 0, 1 << 13, 1 << 14, 1<<14 + 1<<12, 1 << 15
	value := func(row, i int) int { return (row*31 + i*7) % 11 % 8 * (1 - (row+i)%2*2) }
	code := func(v int) byte {
		if v < 0 {
			return wholes[-v] | 0x80
		}
		return wholes[v]
	}
	for r := range n {
		for i := range k {
			h.Bytes()[wAt+r*k+i] = code(value(r, i))
		}
		PinnedSlice[float32](h, wScalesAt, n)[r] = float32(math.Ldexp(1, r%7-3))
	}
	for r := range most {
		for i := range k {
			h.Bytes()[xAt+r*k+i] = code(value(r+5, i*3))
		}
		PinnedSlice[float32](h, xScalesAt, most)[r] = float32(math.Ldexp(1, r%5-9))
	}
	if err := s.Upload(d.Ptr(), h, 0, yAt); err != nil {
		t.Fatal(err)
	}
	at := func(offset int) Ptr { return d.Ptr() + Ptr(offset) }
	for _, m := range []int{1, 3, 16, 17, most} {
		p, err := b.NewProduct(ProductShape{M: m, N: n, K: k, F32: true, FP8: true, Stride: stride})
		if err != nil {
			t.Fatal(err)
		}
		o := Operands{W: at(wAt), X: at(xAt), Y: at(yAt), WScales: at(wScalesAt), XScales: at(xScalesAt)}
		if err := errors.Join(p.RunOperands(o), s.Download(h, yAt, at(yAt), 4*m*stride), s.Wait()); err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for r := range m {
			for col := range n {
				sum := 0
				for i := range k {
					sum += value(r+5, i*3) * value(col, i)
				}
				want := float32(math.Ldexp(float64(sum), col%7-3+r%5-9))
				if PinnedSlice[float32](h, yAt, m*stride)[r*stride+col] != want {
					wrong++
				}
			}
		}
		if wrong > 0 {
			t.Errorf("%d rows: %d of %d elements are wrong", m, wrong, m*n)
		}
		if err := p.Run(o.W, o.X, o.Y); err == nil {
			t.Errorf("a product of codes without scales ran")
		}
		p.Close()
	}
}
