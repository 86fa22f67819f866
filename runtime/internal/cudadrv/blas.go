//go:build cuda

package cudadrv

/*
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The part of cublasLt.h that is used. Its types are opaque or fixed by the
// library's ABI, the same in versions 12 and 13; scales a row are known from 12.9 on.
typedef struct { uint64_t data[8]; } moaAlgo;
typedef struct { moaAlgo algo; size_t workspace; int state; float waves; int reserved[4]; } moaChoice;
enum { MOA_R_32F = 0, MOA_R_16BF = 14, MOA_R_E4M3 = 28, MOA_COMPUTE_32F = 68, MOA_OP_T = 1, MOA_PREF_WORKSPACE = 1, MOA_SCALE_OUTER_VEC = 3 };
enum { MOA_DESC_TRANSA = 3, MOA_DESC_SCALES_A = 17, MOA_DESC_SCALES_B = 18, MOA_DESC_FAST_ACCUM = 25, MOA_DESC_SCALE_MODE_A = 31, MOA_DESC_SCALE_MODE_B = 32 };

typedef struct {
  int (*create)(void **);
  int (*destroy)(void *);
  size_t (*version)(void);
  int (*matmul)(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *, void *,
                void *, void *, const moaAlgo *, void *, size_t, void *);
  int (*descCreate)(void **, int, int);
  int (*descDestroy)(void *);
  int (*descSet)(void *, int, const void *, size_t);
  int (*layoutCreate)(void **, int, uint64_t, uint64_t, int64_t);
  int (*layoutDestroy)(void *);
  int (*prefCreate)(void **);
  int (*prefDestroy)(void *);
  int (*prefSet)(void *, int, const void *, size_t);
  int (*heuristic)(void *, void *, void *, void *, void *, void *, void *, int, moaChoice *, int *);
  void *handle;
} moaBlas;

static const char *moaBlasOpen(moaBlas *b, const char *name) {
  void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!lib) return dlerror();
#define MOA_SYM(field, symbol) \
  if (!(*(void **)&b->field = dlsym(lib, symbol))) return "it has no " symbol;
  MOA_SYM(create, "cublasLtCreate")
  MOA_SYM(destroy, "cublasLtDestroy")
  MOA_SYM(version, "cublasLtGetVersion")
  MOA_SYM(matmul, "cublasLtMatmul")
  MOA_SYM(descCreate, "cublasLtMatmulDescCreate")
  MOA_SYM(descDestroy, "cublasLtMatmulDescDestroy")
  MOA_SYM(descSet, "cublasLtMatmulDescSetAttribute")
  MOA_SYM(layoutCreate, "cublasLtMatrixLayoutCreate")
  MOA_SYM(layoutDestroy, "cublasLtMatrixLayoutDestroy")
  MOA_SYM(prefCreate, "cublasLtMatmulPreferenceCreate")
  MOA_SYM(prefDestroy, "cublasLtMatmulPreferenceDestroy")
  MOA_SYM(prefSet, "cublasLtMatmulPreferenceSetAttribute")
  MOA_SYM(heuristic, "cublasLtMatmulAlgoGetHeuristic")
#undef MOA_SYM
  return 0;
}

static int moaBlasCreate(moaBlas *b) { return b->create(&b->handle); }
static int moaBlasDestroy(moaBlas *b) { return b->destroy(b->handle); }
static size_t moaBlasVersion(moaBlas *b) { return b->version(); }

// y[m][n] = x[m][k] w[n][k]^T, all row-major. The library thinks in columns:
// y^T[n][m] = (w^T)^T[n][k] x^T[k][m].
typedef struct { void *desc, *w, *x, *y; } moaProduct;

static void moaProductDestroy(moaBlas *b, moaProduct *p) {
  if (p->y) b->layoutDestroy(p->y);
  if (p->x) b->layoutDestroy(p->x);
  if (p->w) b->layoutDestroy(p->w);
  if (p->desc) b->descDestroy(p->desc);
  memset(p, 0, sizeof *p);
}

static int moaSetScales(moaBlas *b, moaProduct *p, uintptr_t w, uintptr_t x) {
  int r = b->descSet(p->desc, MOA_DESC_SCALES_A, &w, sizeof w);
  return r ? r : b->descSet(p->desc, MOA_DESC_SCALES_B, &x, sizeof x);
}

// scales is 0 for bfloat16 operands; for e4m3 ones any address, which the heuristic
// wants to see. Fast accumulation keeps sums in the matrix units, with fewer bits: on
// an H100 it brought the error of a product of 14336 inputs from 1.7e-3, the rounding
// of the output, to 3.2e-3, where that of e4m3 inputs is 2.7e-2, and prefill products
// to 1.1 times the speed. It is for outputs that are rounded to bfloat16 at once.
static int moaProductCreate(moaBlas *b, moaProduct *p, uint64_t m, uint64_t n, uint64_t k, int64_t stride, int f32, uintptr_t scales,
                            size_t workspace, moaChoice *choices, int max, int *found) {
  int op = MOA_OP_T, mode = MOA_SCALE_OUTER_VEC, in = scales ? MOA_R_E4M3 : MOA_R_16BF, r;
  int8_t fast = !f32;
  void *pref = 0;
  memset(p, 0, sizeof *p);
  if ((r = b->descCreate(&p->desc, MOA_COMPUTE_32F, MOA_R_32F)) == 0 &&
      (r = b->descSet(p->desc, MOA_DESC_TRANSA, &op, sizeof op)) == 0 &&
      (!scales || ((r = b->descSet(p->desc, MOA_DESC_SCALE_MODE_A, &mode, sizeof mode)) == 0 &&
                   (r = b->descSet(p->desc, MOA_DESC_SCALE_MODE_B, &mode, sizeof mode)) == 0 &&
                   (r = b->descSet(p->desc, MOA_DESC_FAST_ACCUM, &fast, sizeof fast)) == 0 &&
                   (r = moaSetScales(b, p, scales, scales)) == 0)) &&
      (r = b->layoutCreate(&p->w, in, k, n, (int64_t)k)) == 0 &&
      (r = b->layoutCreate(&p->x, in, k, m, (int64_t)k)) == 0 &&
      (r = b->layoutCreate(&p->y, f32 ? MOA_R_32F : MOA_R_16BF, n, m, stride)) == 0 &&
      (r = b->prefCreate(&pref)) == 0 &&
      (r = b->prefSet(pref, MOA_PREF_WORKSPACE, &workspace, sizeof workspace)) == 0)
    r = b->heuristic(b->handle, p->desc, p->w, p->x, p->y, p->y, pref, max, choices, found);
  if (pref) b->prefDestroy(pref);
  if (r) moaProductDestroy(b, p);
  return r;
}

static int moaProductRun(moaBlas *b, moaProduct *p, const moaAlgo *algo, uintptr_t w, uintptr_t x, uintptr_t y, uintptr_t wScales,
                         uintptr_t xScales, uintptr_t workspace, size_t size, uintptr_t stream) {
  float one = 1, zero = 0;
  int r = wScales ? moaSetScales(b, p, wScales, xScales) : 0;
  return r ? r
           : b->matmul(b->handle, p->desc, &one, (void *)w, p->w, (void *)x, p->x, &zero, (void *)y, p->y, (void *)y, p->y, algo,
                       (void *)workspace, size, (void *)stream);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"
)

// BLAS is cuBLASLt. Its products run one after the other on one stream: they
// share a workspace.
type BLAS struct {
	c         *C.moaBlas
	stream    *Stream
	workspace *Memory
	// Tune measures the candidates that the library proposes for a shape and
	// takes the fastest; otherwise its first proposal counts.
	Tune bool
}

// blasWorkspace is what NVIDIA recommends for Hopper.
const blasWorkspace = 32 << 20

// blasNames are where the library is looked for, after MOASERVE_CUBLASLT.
var blasNames = []string{
	"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13",
	"libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.12",
}

// NewBLAS finds cuBLASLt: the file that the environment variable
// MOASERVE_CUBLASLT names, or version 13 or 12 where the dynamic linker or CUDA's
// installer puts it.
func (c *Context) NewBLAS(s *Stream) (*BLAS, error) {
	names := blasNames
	if name := os.Getenv("MOASERVE_CUBLASLT"); name != "" {
		names = []string{name}
	}
	b := &BLAS{c: (*C.moaBlas)(C.calloc(1, C.sizeof_moaBlas)), stream: s}
	var tried []error
	for _, name := range names {
		err := b.open(name)
		if err == nil {
			if b.workspace, err = c.Alloc(blasWorkspace); err != nil {
				return nil, errors.Join(err, b.Close())
			}
			return b, nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", name, err))
	}
	C.free(unsafe.Pointer(b.c))
	return nil, fmt.Errorf("cuBLASLt was not found; set LD_LIBRARY_PATH or MOASERVE_CUBLASLT: %w", errors.Join(tried...))
}

func (b *BLAS) open(name string) error {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	if msg := C.moaBlasOpen(b.c, s); msg != nil {
		return errors.New(C.GoString(msg))
	}
	return blasResult("cublasLtCreate", C.moaBlasCreate(b.c))
}

func blasResult(call string, r C.int) error {
	if r == 0 {
		return nil
	}
	return &Error{Call: call, Code: int(r), BLAS: true}
}

// Version returns the library's version: 130100 is 13.1.0.
func (b *BLAS) Version() int { return int(C.moaBlasVersion(b.c)) }

// Close ends the use of the library. Products must have been closed.
func (b *BLAS) Close() error {
	err := blasResult("cublasLtDestroy", C.moaBlasDestroy(b.c))
	if b.workspace != nil {
		err = errors.Join(err, b.workspace.Free())
	}
	C.free(unsafe.Pointer(b.c))
	b.c = nil
	return err
}

// ProductShape is the shape of y[M][N] = x[M][K] w[N][K]^T: bfloat16 matrices,
// sums in float32, and y in bfloat16 or float32.
type ProductShape struct {
	M, N, K int
	F32     bool
	// FP8 says that x and w are e4m3 codes with a scale for each of their rows. Then
	// N and K are multiples of 16.
	FP8 bool
	// Stride is the elements from a row of y to the next; 0 means N.
	Stride int
}

// String gives the shape for messages.
func (s ProductShape) String() string {
	out := "bf16"
	if s.F32 {
		out = "f32"
	}
	in := ""
	if s.FP8 {
		in = " of e4m3"
	}
	return fmt.Sprintf("%s product%s [%d,%d] x [%d,%d]^T", out, in, s.M, s.K, s.N, s.K)
}

// Product is a prepared product.
type Product struct {
	blas    *BLAS
	shape   ProductShape
	c       C.moaProduct
	choices []C.moaChoice
	algo    *C.moaAlgo // nothing but what cgo may point to
	tuned   bool
}

// candidates is how many algorithms are asked for: beyond the first few, the
// heuristic's order hardly ever hides a better one.
const candidates = 8

// NewProduct prepares the products of a shape.
func (b *BLAS) NewProduct(shape ProductShape) (*Product, error) {
	p := &Product{blas: b, shape: shape, choices: make([]C.moaChoice, candidates)}
	f32, stride, scales := C.int(0), shape.N, Ptr(0)
	if shape.F32 {
		f32 = 1
	}
	if shape.Stride != 0 {
		stride = shape.Stride
	}
	if shape.FP8 {
		scales = b.workspace.Ptr()
	}
	var found C.int
	r := C.moaProductCreate(b.c, &p.c, C.uint64_t(shape.M), C.uint64_t(shape.N), C.uint64_t(shape.K), C.int64_t(stride), f32, C.uintptr_t(scales),
		blasWorkspace, &p.choices[0], candidates, &found)
	if err := blasResult("cublasLtMatmulAlgoGetHeuristic", r); err != nil {
		return nil, fmt.Errorf("%v: %w", shape, err)
	}
	p.choices = p.choices[:found]
	if found == 0 {
		p.Close()
		return nil, fmt.Errorf("%v: cuBLASLt has no algorithm", shape)
	}
	p.algo = &p.choices[0].algo
	p.tuned = !b.Tune || found == 1
	return p, nil
}

// Operands are the addresses of a product's matrices.
type Operands struct {
	W, X, Y Ptr
	// WScales and XScales are float32 [N] and [M], of a product with FP8.
	WScales, XScales Ptr
}

// Run adds the product of bfloat16 matrices to the stream; see RunOperands.
func (p *Product) Run(w, x, y Ptr) error { return p.RunOperands(Operands{W: w, X: x, Y: y}) }

// RunOperands adds the product to the stream. Unless Tuned, it must not be
// captured: it measures the candidates first, with these operands.
func (p *Product) RunOperands(o Operands) error {
	if p.shape.FP8 && (o.WScales == 0 || o.XScales == 0) {
		return fmt.Errorf("%v: the operands have no scales", p.shape)
	}
	if !p.tuned {
		if err := p.tune(o); err != nil {
			return err
		}
	}
	return p.run(p.algo, o)
}

// Tuned reports whether the algorithm is chosen.
func (p *Product) Tuned() bool { return p.tuned }

func (p *Product) run(algo *C.moaAlgo, o Operands) error {
	b := p.blas
	r := C.moaProductRun(b.c, &p.c, algo, C.uintptr_t(o.W), C.uintptr_t(o.X), C.uintptr_t(o.Y), C.uintptr_t(o.WScales), C.uintptr_t(o.XScales),
		C.uintptr_t(b.workspace.Ptr()), blasWorkspace, C.uintptr_t(uintptr(unsafe.Pointer(cStream(b.stream.s)))))
	if err := blasResult("cublasLtMatmul", r); err != nil {
		return fmt.Errorf("%v: %w", p.shape, err)
	}
	return nil
}

// tuneRuns is how often a candidate runs: the first time warms up, the best of
// the others counts.
const tuneRuns = 4

// tune takes the fastest candidate. A candidate that fails is out.
func (p *Product) tune(o Operands) error {
	best := time.Duration(-1)
	for i := range p.choices {
		algo := &p.choices[i].algo
		for r := range tuneRuns {
			d, err := p.blas.stream.Time(func() error { return p.run(algo, o) })
			var status *Error
			if errors.As(err, &status) && status.BLAS {
				break
			}
			if err != nil {
				return err
			}
			if r > 0 && (best < 0 || d < best) {
				best, p.algo = d, algo
			}
		}
	}
	if best < 0 {
		return fmt.Errorf("%v: none of cuBLASLt's %d algorithms runs", p.shape, len(p.choices))
	}
	p.tuned = true
	return nil
}

// Close frees the descriptors.
func (p *Product) Close() { C.moaProductDestroy(p.blas.c, &p.c) }
