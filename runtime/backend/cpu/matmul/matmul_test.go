package matmul

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/weights"
)

// checkProduct compares the product with that of the dequantised operands in
// float64.
//
// Tolerance, in units u = 2^-24: dot products and sums are exact, and so are
// scales and, but for the K formats, minimum*sum (11 and 12 bits). So a block's
// term is rounded once, and the sum once a block: (blocks+1)*u times the sum of
// all magnitudes, plus one for second orders and plain Go's double roundings. The
// K formats round minimum*sum too. The float kinds round once a column.
func checkProduct(t *testing.T, w weights.Tensor, a *Activations, got []float32) {
	t.Helper()
	out, in := w.Shape[0], w.Shape[1]
	values, minima := dequantise(w)
	steps := in/blockCols + 2
	if !kinds[w.Type].quantised() {
		steps = in
	}
	for i := range a.Rows() {
		x := a.values(i, w.Type)
		for n := range out {
			var want, bound float64
			for k := range in {
				want += x[k] * values[n*in+k]
				bound += math.Abs(x[k]) * (float64(steps)*math.Abs(values[n*in+k]) + math.Abs(minima[n*in+k]))
			}
			bound *= 0x1p-24
			g := float64(got[i*out+n])
			if diff := math.Abs(g - want); !(diff <= bound) {
				t.Fatalf("%dx%d, row %d, output %d: got %v, want %v: off by %g, bound %g", out, in, i, n, g, want, diff, bound)
			}
		}
	}
}

func product(m *Matrix, a *Activations) []float32 {
	dst := make([]float32, a.Rows()*m.Rows())
	m.Mul(dst, m.Rows(), a, 0, a.Rows(), 0, m.Tiles())
	return dst
}

// heap is memory for a matrix.
func heap(n int) ([]byte, error) {
	const line = 64
	b := make([]byte, n+line-1)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % line
	return b[skip:][:n:n], nil
}

func pack(t testing.TB, w weights.Tensor, set isa.ISA) *Matrix {
	t.Helper()
	m, err := Pack(w, set, heap)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// forEach runs f for every weight type and every instruction set.
func forEach(t *testing.T, f func(t *testing.T, typ weights.Type, set isa.ISA)) {
	for _, set := range isas(t) {
		for _, typ := range allTypes {
			t.Run(fmt.Sprintf("%v/%s", set, typeNames[typ]), func(t *testing.T) { f(t, typ, set) })
		}
	}
}

func TestProductMatchesFloat64Reference(t *testing.T) {
	forEach(t, func(t *testing.T, typ weights.Type, set isa.ISA) {
		rng := rand.New(rand.NewPCG(1, uint64(typ)))
		check := func(out, in int, rows ...int) {
			if in%kinds[typ].srcCols != 0 {
				return
			}
			w := newTensor(rng, typ, out, in, random)
			m := pack(t, w, set)
			for _, n := range rows {
				a := newActivations(rng, n, in, false)
				checkProduct(t, w, a, product(m, a))
			}
		}
		for _, out := range []int{1, 7, 8, 9, 15, 16, 17} {
			for _, in := range []int{32, 64, 96, 256, 512, 576} {
				check(out, in, 1, 2, 3, 5)
			}
		}
		check(192, 576, 1, 9)
		if set != isa.Generic { // the sizes of a small model's matrices
			check(576, 1536, 3)
			check(1536, 256, 3)
		}
	})
}

// The bits of an output must not depend on what else is computed.
func TestBitsDoNotDependOnRowsOrTiles(t *testing.T) {
	forEach(t, func(t *testing.T, typ weights.Type, set isa.ISA) {
		rng := rand.New(rand.NewPCG(2, uint64(typ)))
		const out, in, most = 16*3 + 3, 256, maxRows + 7
		m := pack(t, newTensor(rng, typ, out, in, random), set)
		a := newActivations(rng, most, in, false)
		want := make([]float32, most*out)
		for i := range most {
			m.Mul(want, out, a, i, i+1, 0, m.Tiles())
		}
		equal := func(got []float32, from, to int, what string) {
			t.Helper()
			for i := from * out; i < to*out; i++ {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("%s: row %d, output %d: %v, alone %v", what, i/out, i%out, got[i], want[i])
				}
			}
		}
		for rows := 2; rows <= most; rows++ {
			for from := 0; from+rows <= most; from += 9 {
				got := make([]float32, most*out)
				m.Mul(got, out, a, from, from+rows, 0, m.Tiles())
				equal(got, from, from+rows, fmt.Sprintf("rows %d-%d", from, from+rows))
			}
		}
		for cut := 1; cut < m.Tiles(); cut++ {
			got := make([]float32, most*out)
			m.Mul(got, out, a, 0, most, cut, m.Tiles())
			m.Mul(got, out, a, 0, most, 0, cut)
			equal(got, 0, most, fmt.Sprintf("cut at tile %d", cut))
		}
	})
}

// All codes at their limits: a 16-bit sum that overflowed or saturated would be
// off by far more than the tolerance.
func TestExtremeCodesDoNotOverflow(t *testing.T) {
	forEach(t, func(t *testing.T, typ weights.Type, set isa.ISA) {
		rng := rand.New(rand.NewPCG(3, uint64(typ)))
		for _, f := range []fill{highest, lowest} {
			w := newTensor(rng, typ, 24, 512, f)
			m := pack(t, w, set)
			a := newActivations(rng, maxRows+7, 512, true) // a call of each number of rows
			for i := range a.Rows() {
				for _, b := range a.blocks(i)[:512/blockCols] {
					if b.codes[0] != int8(127-254*(i%2)) || math.Abs(float64(b.sum)) != 127*blockCols {
						t.Fatalf("activation codes are not extreme: %v, sum %v", b.codes, b.sum)
					}
				}
			}
			checkProduct(t, w, a, product(m, a))
		}
	})
}

// Every instruction set rounds at the same places: the assembly gives the same
// bits, and plain Go nearly always (its fused multiply-add rounds twice).
func TestInstructionSetsAgree(t *testing.T) {
	all := isas(t)
	for _, typ := range allTypes {
		rng := rand.New(rand.NewPCG(4, uint64(typ)))
		w := newTensor(rng, typ, 40, 512, random)
		a := newActivations(rng, 5, 512, false)
		want := product(pack(t, w, isa.Generic), a)
		var first []float32
		for _, set := range all[1:] {
			got := product(pack(t, w, set), a)
			if first == nil {
				first = got
			}
			if !slices.Equal(got, first) {
				t.Errorf("%s: %v and %v differ", typeNames[typ], set, all[1])
			}
			differ := 0
			for i := range got {
				if got[i] != want[i] {
					differ++
				}
			}
			if differ > len(got)/100 {
				t.Errorf("%s: %d of %d outputs of %v differ from plain Go", typeNames[typ], differ, len(got), set)
			}
		}
	}
}

func TestMulWritesItsRangeOnly(t *testing.T) {
	forEach(t, func(t *testing.T, typ weights.Type, set isa.ISA) {
		rng := rand.New(rand.NewPCG(5, uint64(typ)))
		const out, in, rows, stride, mark = 41, 256, 6, 50, 12345
		m := pack(t, newTensor(rng, typ, out, in, random), set)
		a := newActivations(rng, rows, in, false)
		dst := make([]float32, rows*stride)
		for i := range dst {
			dst[i] = mark
		}
		m.Mul(dst, stride, a, 1, 5, 1, 3)
		for i, v := range dst {
			inside := i/stride >= 1 && i/stride < 5 && i%stride >= 16 && i%stride < out
			if inside == (v == mark) {
				t.Fatalf("row %d, output %d: %v", i/stride, i%stride, v)
			}
		}
	})
}

func TestMulRefusesRangesOutside(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	m := pack(t, newTensor(rng, weights.Q4_0, 40, 64, random), isa.Generic)
	a, narrow := newActivations(rng, 3, 64, false), newActivations(rng, 3, 32, false)
	dst := make([]float32, 3*40)
	for name, f := range map[string]func(){
		"rows":          func() { m.Mul(dst, 40, a, 0, 4, 0, 3) },
		"negative row":  func() { m.Mul(dst, 40, a, -1, 1, 0, 3) },
		"tiles":         func() { m.Mul(dst, 40, a, 0, 3, 0, 4) },
		"negative tile": func() { m.Mul(dst, 40, a, 0, 3, -1, 3) },
		"columns":       func() { m.Mul(dst, 40, narrow, 0, 3, 0, 3) },
		"short dst":     func() { m.Mul(dst[:119], 40, a, 0, 3, 0, 3) },
		"small stride":  func() { m.Mul(dst, 39, a, 0, 3, 0, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestMulDoesNotAllocate(t *testing.T) {
	forEach(t, func(t *testing.T, typ weights.Type, set isa.ISA) {
		rng := rand.New(rand.NewPCG(6, uint64(typ)))
		m := pack(t, newTensor(rng, typ, 41, 256, random), set)
		a := newActivations(rng, 7, 256, false)
		dst := make([]float32, 7*41)
		if n := testing.AllocsPerRun(5, func() { m.Mul(dst, 41, a, 0, 7, 0, m.Tiles()) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestPackRefusesWhatItCannotMultiply(t *testing.T) {
	good := newTensor(rand.New(rand.NewPCG(7, 7)), weights.Q4_0, 2, 64, random)
	for name, change := range map[string]func(*weights.Tensor){
		"vector":        func(w *weights.Tensor) { w.Shape = []int{128} },
		"odd columns":   func(w *weights.Tensor) { w.Shape = []int{2, 65} },
		"no rows":       func(w *weights.Tensor) { w.Shape = []int{0, 64} },
		"negative":      func(w *weights.Tensor) { w.Shape = []int{-2, -64} },
		"unknown type":  func(w *weights.Tensor) { w.Type = 200 },
		"no type":       func(w *weights.Tensor) { w.Type = 0 },
		"half a K":      func(w *weights.Tensor) { w.Type = weights.Q4_K },
		"odd F32 width": func(w *weights.Tensor) { w.Type, w.Shape = weights.F32, []int{2, 33} },
	} {
		t.Run(name, func(t *testing.T) {
			w := good
			change(&w)
			if _, err := Pack(w, isa.Generic, heap); !errors.Is(err, backend.ErrNotSupported) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, change := range map[string]func(*weights.Tensor){
		"truncated":    func(w *weights.Tensor) { w.Data = w.Data[1:] },
		"too few rows": func(w *weights.Tensor) { w.Shape = []int{3, 64} },
		"overflow":     func(w *weights.Tensor) { w.Type, w.Shape = weights.F32, []int{4, 1 << 62} },
	} {
		t.Run(name, func(t *testing.T) {
			w := good
			change(&w)
			if _, err := Pack(w, isa.Generic, heap); err == nil || errors.Is(err, backend.ErrNotSupported) {
				t.Errorf("got %v", err)
			}
		})
	}
}
