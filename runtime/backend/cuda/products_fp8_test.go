//go:build cuda

package cuda

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/weights"
)

// wrongCodes counts the codes and scales of rows that are not the reference's.
func wrongCodes(x []uint16, codes []byte, scales []float32, cols int) (wrong int) {
	row := make([]float32, cols)
	for r := range scales {
		for i, b := range x[r*cols:][:cols] {
			row[i] = weights.BF16ToFloat32(b)
		}
		scale := e4m3Scale(row)
		if float64(scales[r]) != scale {
			wrong++
		}
		for i, v := range row {
			got, want := codes[r*cols+i], e4m3Code(float64(v)/scale)
			if got != want && !(want&e4m3NaN == e4m3NaN && got&e4m3NaN == e4m3NaN) {
				wrong++
			}
		}
	}
	return wrong
}

// Every bfloat16 up to 448 in one row, and rows of odd lengths whose magnitudes are
// anywhere.
func TestRowsAreQuantisedToTheBitsOfTheReference(t *testing.T) {
	s := newSmall(t, 1)
	var all []uint16
	for b := range 1 << 16 {
		if x := weights.BF16ToFloat32(uint16(b)); math.Abs(float64(x)) <= 448 || x != x {
			all = append(all, uint16(b))
		}
	}
	all = append(all, make([]uint16, (8-len(all)%8)%8)...)
	rng := rand.New(rand.NewPCG(3, 1))
	for name, c := range map[string]struct {
		x          []uint16
		rows, cols int
	}{
		"all values up to 448": {all, 1, len(all)},
		"one vector":           {randomRows(rng, 5, 8), 5, 8},
		"an odd length":        {randomRows(rng, 33, 72), 33, 72},
		"long rows":            {randomRows(rng, 3, 28672), 3, 28672},
	} {
		x := upload(t, s.dev, c.x, 2)
		codes, scales, back := upload(t, s.dev, make([]byte, len(c.x)), 1), upload(t, s.dev, make([]float32, c.rows), 4), upload(t, s.dev, make([]uint16, len(c.x)), 2)
		s.onDevice(func() error {
			return errors.Join(
				launch(s.dev, &cudakernels.QuantizeRows{X: x, Codes: codes, Scales: scales, Rows: int64(c.rows), Cols: int64(c.cols)}, false),
				launch(s.dev, &cudakernels.DequantizeRows{Codes: codes, Scales: scales, Y: back, Rows: int64(c.rows), Cols: int64(c.cols)}, true))
		})
		gotCodes, gotScales := download[byte](t, s.dev, codes, len(c.x), 1), download[float32](t, s.dev, scales, c.rows, 4)
		if n := wrongCodes(c.x, gotCodes, gotScales, c.cols); n > 0 {
			t.Errorf("%s: %d of %d codes and scales are not the reference's", name, n, len(c.x))
		}
		wrong := 0
		for i, b := range download[uint16](t, s.dev, back, len(c.x), 2) {
			want := e4m3Value(gotCodes[i]) * float64(gotScales[i/c.cols])
			if got := float64(weights.BF16ToFloat32(b)); got != want && !(math.IsNaN(got) && math.IsNaN(want)) && math.Abs(want) >= math.Ldexp(1, -126) {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("%s: %d of %d codes become another value", name, wrong, len(c.x))
		}
	}
}

// randomRows are rows of normal values, each of another magnitude.
func randomRows(rng *rand.Rand, rows, cols int) []uint16 {
	x := make([]uint16, rows*cols)
	for i := range x {
		v := math.Ldexp(rng.NormFloat64(), 37*(i/cols)%240-120)
		x[i] = weights.Float32ToBF16(float32(v))
	}
	return x
}

// Values of at least 2^-6 of the scale are the sum of their two codes, others nearly.
func TestSplitRowsAreTheRows(t *testing.T) {
	s := newSmall(t, 1)
	rng := rand.New(rand.NewPCG(5, 1))
	for _, c := range []struct{ rows, cols int }{{1, 8}, {5, 72}, {33, 576}, {2, 28672}} {
		x := randomRows(rng, c.rows, c.cols)
		clear(x[(c.rows-1)*c.cols:]) // rows that pad a bucket may be zeros
		n := len(x)
		in, codes, scales := upload(t, s.dev, x, 2), upload(t, s.dev, make([]byte, 2*n), 1), upload(t, s.dev, make([]float32, 2*c.rows), 4)
		s.onDevice(func() error {
			return launch(s.dev, &cudakernels.SplitRows{X: in, Codes: codes, Scales: scales, Rows: int64(c.rows), Cols: int64(c.cols)}, false)
		})
		gotCodes, gotScales := download[byte](t, s.dev, codes, 2*n, 1), download[float32](t, s.dev, scales, 2*c.rows, 4)
		wrong := 0
		for i, b := range x {
			scale := float64(gotScales[i/c.cols])
			want := float64(weights.BF16ToFloat32(b))
			got := e4m3Value(gotCodes[i])*scale + e4m3Value(gotCodes[n+i])*float64(gotScales[c.rows+i/c.cols])
			lost := 0.0
			if math.Abs(want) < math.Ldexp(scale, -6) {
				lost = math.Ldexp(scale, -14)
			}
			if !(math.Abs(got-want) <= lost) {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("%d rows of %d: %d values are not the sum of their codes", c.rows, c.cols, wrong)
		}
	}
}

// Inputs that are split, on a batch as large as that is done for.
func TestSplitInputsLoseNothing(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{Layers: 1, Hidden: 64, FFN: 1040})
	d := loadFP8(t, m, src, backend.Int16)
	if d.products.fp8.sums == 0 {
		t.Skip("the library or the device has no e4m3 products")
	}
	s := &small{T: t, dev: d}
	rng := rand.New(rand.NewPCG(6, 1))
	w, k, n := d.weights.layers[0].down, m.FFN, m.Hidden
	codes, scales := download[byte](t, d, w.at, n*k, 1), download[float32](t, d, w.scales, n, 4)
	for _, rows := range []int{1, 17, 64} {
		x := make([]uint16, rows*k)
		for i := range x {
			x[i] = weights.Float32ToBF16(float32(rng.NormFloat64()))
		}
		in, y := upload(t, d, x, 2), upload(t, d, make([]uint16, rows*n), 2)
		s.onDevice(func() error { return d.multiply(cudadrv.ProductShape{M: rows, N: n, K: k}, w, in, y) })
		for i, b := range download[uint16](t, d, y, rows*n, 2) {
			r, c := i/n, i%n
			var want, size float64
			for j := range k {
				p := e4m3Value(codes[c*k+j]) * float64(scales[c]) * float64(weights.BF16ToFloat32(x[r*k+j]))
				want, size = want+p, size+math.Abs(p)
			}
			// The output is rounded, at most by 2^-8 of it. Sums in the matrix units keep
			// 13 bits of the largest product for 32 products at a time, and their sum in
			// float32; the products of two codes have 8 bits.
			if d := math.Abs(float64(weights.BF16ToFloat32(b)) - want); !(d <= math.Abs(want)/256+size*math.Ldexp(1, -13)) {
				t.Fatalf("%d rows: element (%d, %d) is off by %.3g of %.3g", rows, r, c, d, want)
			}
		}
	}
}

// A small panel cuts every product, into equal parts and into a shorter last one.
func TestPanelsAreCutAnywhere(t *testing.T) {
	s := newSmall(t, 1)
	rng := rand.New(rand.NewPCG(4, 1))
	const m, k = 5, 144
	for _, n := range []int{64, 208, 400, 1040} {
		x := make([]uint16, (m+n)*k)
		for i := range x {
			x[i] = weights.Float32ToBF16(float32(rng.NormFloat64()))
		}
		w := matrix{at: upload(t, s.dev, make([]byte, n*k), 1), scales: upload(t, s.dev, make([]float32, n), 4)}
		in, y := upload(t, s.dev, x, 2), upload(t, s.dev, make([]float32, m*n), 4)
		s.dev.products.fp8 = fp8{panel: upload(t, s.dev, make([]uint16, 128*k), 2), panelElems: 128 * k}
		s.onDevice(func() error {
			return errors.Join(
				launch(s.dev, &cudakernels.QuantizeRows{X: in + 2*m*k, Codes: w.at, Scales: w.scales, Rows: int64(n), Cols: k}, false),
				s.dev.multiply(cudadrv.ProductShape{M: m, N: n, K: k, F32: true}, w, in, y))
		})
		codes, scales, got := download[byte](t, s.dev, w.at, n*k, 1), download[float32](t, s.dev, w.scales, n, 4), download[float32](t, s.dev, y, m*n, 4)
		for r := range m {
			for c := range n {
				var want, size float64
				for i := range k {
					p := e4m3Value(codes[c*k+i]) * float64(scales[c]) * float64(weights.BF16ToFloat32(x[r*k+i]))
					want, size = want+p, size+math.Abs(p)
				}
				// Products are exact in float32; each of the k sums is rounded once.
				if d := math.Abs(float64(got[r*n+c]) - want); !(d <= size*k*math.Ldexp(1, -24)) {
					t.Fatalf("%d outputs: element (%d, %d) is %v, want %v", n, r, c, got[r*n+c], want)
				}
			}
		}
	}
}

func TestPanelsHoldTheirOutputs(t *testing.T) {
	for _, c := range []struct{ elems, n, k, want int }{
		{1 << 20, 1024, 1024, 1024}, {1 << 20, 1025, 1024, 576}, {1 << 20, 4096, 1024, 1024}, {1 << 20, 100, 16384, 64}, {1 << 20, 64 * 3, 10000, 64},
	} {
		f := fp8{panelElems: c.elems}
		if got := f.panelOutputs(c.n, c.k); got != c.want || got*c.k > c.elems {
			t.Errorf("%d outputs from %d inputs in %d elements: %d at a time, want %d", c.n, c.k, c.elems, got, c.want)
		}
	}
}
