//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/internal/fakecuda"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// fp8Options loads with fp8 weights.
func fp8Options(activations backend.Precision) backend.Options {
	o := testOptions()
	o.Weights, o.Activations = backend.WeightsFP8, activations
	return o
}

// loadFP8 loads a model and gives its device up when the test ends.
func loadFP8(t *testing.T, m *model.Model, src weights.Source, activations backend.Precision) *Device {
	t.Helper()
	dev, err := New().Load(t.Context(), m, src, fp8Options(activations))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev.(*Device)
}

// download copies n elements from the device.
func download[T any](t *testing.T, d *Device, p cudakernels.Ptr, n, size int) []T {
	t.Helper()
	leave, err := d.ctx.Enter()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	h, err := d.ctx.NewPinned(n * size)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.stream.Download(h, 0, cudadrv.Ptr(p), n*size), d.stream.Wait()); err != nil {
		t.Fatal(err)
	}
	out := append([]T(nil), cudadrv.PinnedSlice[T](h, 0, n)...)
	if err := h.Free(); err != nil {
		t.Fatal(err)
	}
	return out
}

// upload copies elements to memory that lives as long as the device.
func upload[T any](t *testing.T, d *Device, x []T, size int) cudakernels.Ptr {
	t.Helper()
	leave, err := d.ctx.Enter()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	h, err := d.ctx.NewPinned(len(x) * size)
	if err != nil {
		t.Fatal(err)
	}
	copy(cudadrv.PinnedSlice[T](h, 0, len(x)), x)
	p, err := d.arena.Alloc(int64(len(x) * size))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.stream.Upload(p, h, 0, len(x)*size), d.stream.Wait(), h.Free()); err != nil {
		t.Fatal(err)
	}
	return cudakernels.Ptr(p)
}

// onDevice runs launches of a test.
func (s *small) onDevice(f func() error) {
	s.Helper()
	leave, err := s.dev.ctx.Enter()
	if err != nil {
		s.Fatal(err)
	}
	defer leave()
	if err := errors.Join(f(), s.dev.stream.Wait()); err != nil {
		s.Fatal(err)
	}
}

// The tensors of a layer are longer than a piece, so that rows are put together from
// several.
func TestProjectionsAreLoadedAsCodes(t *testing.T) {
	const pieces = stagingBytes / 2
	m, src := modeltest.New(t, modeltest.Options{Layers: 1, Hidden: 2048, Heads: 32, KVHeads: 4, HeadDim: 64, FFN: pieces/2048 + 16, Type: weights.BF16})
	d := loadFP8(t, m, src, backend.Int16)
	y := &d.weights.layers[0]
	for _, c := range []struct {
		name  string
		w     matrix
		roles []model.Role
	}{
		{"qkv", y.qkv, []model.Role{model.AttnQ, model.AttnK, model.AttnV}},
		{"o", y.o, []model.Role{model.AttnO}},
		{"gate and up", y.gateUp, []model.Role{model.FFNGate, model.FFNUp}},
		{"down", y.down, []model.Role{model.FFNDown}},
	} {
		var x []uint16
		rows, cols := 0, 0
		for _, r := range c.roles {
			tensor, err := m.Tensor(src, r, 0)
			if err != nil {
				t.Fatal(err)
			}
			part := make([]uint16, tensor.Elems())
			if err := toBF16(part, tensor, 0); err != nil {
				t.Fatal(err)
			}
			x = append(x, part...)
			rows, cols = rows+tensor.Shape[0], tensor.Shape[1]
		}
		if n := wrongCodes(x, download[byte](t, d, c.w.at, len(x), 1), download[float32](t, d, c.w.scales, rows, 4), cols); n > 0 {
			t.Errorf("%s: %d of %d codes and scales are not the reference's", c.name, n, len(x))
		}
	}
}

// fp8Precisions are the relative errors of a product with fp8 weights, those of the
// weights aside, by the precision of its inputs. The fake driver has e4m3 products;
// a device that has none computes as with 16 bits.
var fp8Precisions = map[backend.Precision]float64{
	backend.Int16: productError,
	backend.Int8:  math.Hypot(productError, e4m3Error),
}

// The reference computes with what the codes stand for, so nothing but the rounding
// of activations is left: as with bf16 weights, or that of e4m3.
func TestFP8WeightsAnswerLikeTheReferenceOnTheirValues(t *testing.T) {
	for _, architecture := range []string{"llama", "qwen2", "qwen3"} {
		m, src := modeltest.New(t, modeltest.Options{Architecture: architecture, Hidden: 128, HeadDim: 64, FFN: 272, Vocab: 256, Layers: 3, Seed: 9})
		l := plan.NewDense(m.Shape()).Bind(120)
		prompt := make([]int32, 120)
		for i := range prompt {
			prompt[i] = int32(i * 37 % m.Vocab)
		}
		ref, err := model.NewReference(m, roundedWeights(src))
		if err != nil {
			t.Fatal(err)
		}
		ref.RoundKV = model.RoundBF16
		want, err := ref.Logits(prompt, l)
		if err != nil {
			t.Fatal(err)
		}
		for activations, precision := range fp8Precisions {
			// As backendtest derives it: four products a layer and one to the logits, which
			// has bf16 weights, and keys and values that may be rounded to a neighbour.
			n, kv := float64(m.Layers), math.Ldexp(1, -8)
			tolerance := 2 * math.Sqrt(4*n*precision*precision+productError*productError+2*n*kv*kv)
			for i, row := range logitsOf(t, New(), m, src, fp8Options(activations), l, prompt) {
				var diff, size float64
				for j, x := range row {
					e := float64(x) - want[i][j]
					diff, size = diff+e*e, size+want[i][j]*want[i][j]
				}
				if d := math.Sqrt(diff / size); !(d <= tolerance) {
					t.Errorf("%s, activations %d: the logits of token %d are off by %.3g of their length, more than %.3g", architecture, activations, i, d, tolerance)
					break
				}
			}
		}
	}
}

// The suite, whose reference has the weights as they were before.
func TestConformanceWithFP8Weights(t *testing.T) {
	for activations, precision := range fp8Precisions {
		t.Run(fmt.Sprintf("activations=%d", activations), func(t *testing.T) {
			backendtest.Run(t, New(), backendtest.Options{
				KV:        []backend.KVType{backend.KVBF16},
				Types:     []weights.Type{weights.F32},
				Load:      backend.Options{Weights: backend.WeightsFP8, Activations: activations},
				Rounds:    true,
				Precision: func(weights.Type) float64 { return math.Hypot(precision, e4m3Error) },
			})
		})
	}
}

func TestFailedFP8LoadsLeaveNothing(t *testing.T) {
	onFake(t)
	m, src := modeltest.New(t, modeltest.Options{Layers: 1})
	for _, call := range []string{"cuMemAlloc_v2", "cuMemHostAlloc", "cuMemcpyHtoDAsync_v2", "kernel:quantize_rows", "cuStreamSynchronize"} {
		failures := 0
		for skip := 0; ; skip++ {
			fakecuda.Reset()
			fakecuda.Fail(call, skip, 2)
			dev, err := New().Load(t.Context(), m, src, fp8Options(backend.Int8))
			if err == nil {
				fakecuda.Reset()
				if err := dev.Close(); err != nil {
					t.Error(err)
				}
				break
			}
			failures++
			if n := fakecuda.Count("memory"); n != 0 {
				t.Fatalf("%s failed after %d times: %d allocations are left", call, skip, n)
			}
		}
		if failures == 0 {
			t.Errorf("%s is not called", call)
		}
	}
}

// Without e4m3 products, weights are decoded.
func TestFP8WeightsNeedNoFP8Products(t *testing.T) {
	onFake(t)
	m, src := modeltest.New(t, modeltest.Options{})
	fakecuda.Fail("cublasLtMatmulAlgoGetHeuristic", 0, 15)
	d := loadFP8(t, m, src, backend.Int8)
	if f := d.products.fp8; f.panel == 0 || f.codes != 0 || f.sums != 0 {
		t.Errorf("the library has no e4m3 products, and they are used: %+v", d.products.fp8)
	}
}

func TestShapesThatFP8ProductsDoNotTakeAreRefused(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{FFN: 136})
	if _, err := New().Load(t.Context(), m, src, fp8Options(backend.Int8)); !errors.Is(err, backend.ErrNotSupported) {
		t.Errorf("a feed-forward size of 136: %v", err)
	}
	dev, err := New().Load(t.Context(), m, src, testOptions())
	if err != nil {
		t.Fatalf("with bf16 weights: %v", err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

// loadFormat loads a model and returns the format of its pages, too.
func loadFormat(t *testing.T, m *model.Model, src weights.Source, o backend.Options) (backend.Device, string) {
	t.Helper()
	dev, err := New().Load(t.Context(), m, src, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dev.NewPool(1)
	if err != nil {
		t.Fatal(err)
	}
	return dev, p.(backend.PageIO).Format()
}

func TestPagesOfOtherPrecisionsAreToldApart(t *testing.T) {
	m, src := modeltest.New(t, modeltest.Options{})
	seen := map[string]bool{}
	for _, o := range []backend.Options{testOptions(), fp8Options(backend.Int8), fp8Options(backend.Int16)} {
		dev, f := loadFormat(t, m, src, o)
		if seen[f] && !(o.Weights == backend.WeightsFP8 && !dev.(*Device).products.blas.SupportsFP8()) {
			t.Errorf("the format %q is that of another precision", f)
		}
		seen[f] = true
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
