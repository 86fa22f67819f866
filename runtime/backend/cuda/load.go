//go:build cuda

package cuda

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/moaserve/moaserve/cudakernels"
	"github.com/moaserve/moaserve/runtime/internal/cudadrv"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// deviceWeights are the addresses of the weights: embeddings in bfloat16, projections
// in bfloat16 or e4m3, norms and biases in float32.
type deviceWeights struct {
	embedding, outNorm, output cudakernels.Ptr
	layers                     []deviceLayer
	bytes                      int64 // that a step reads, the rows of the embedding aside
}

type deviceLayer struct {
	attnNorm, ffnNorm cudakernels.Ptr
	qkv, o            matrix          // queries, keys and values in one product
	bias              cudakernels.Ptr // of qkv; 0 unless the architecture has it
	qNorm, kNorm      cudakernels.Ptr // 0 unless the architecture has them
	gateUp, down      matrix          // gate and up in one product
}

// loader converts and uploads tensors. Its methods keep the first error.
type loader struct {
	ctx         context.Context
	d           *Device
	m           *model.Model
	src         weights.Source
	staging     [2]*cudadrv.Pinned
	next        int             // the half of the staging that is free
	rows        *cudadrv.Memory // what is to be quantised, on the device
	done, total int64
	err         error
}

// stagingBytes is the size of a half of the staging memory: long enough for the
// bus to run at full speed.
const stagingBytes = 16 << 20

func (d *Device) loadWeights(ctx context.Context, m *model.Model, src weights.Source) (err error) {
	l := &loader{ctx: ctx, d: d, m: m, src: src}
	for i := range l.staging {
		if l.staging[i], err = d.ctx.NewPinned(stagingBytes); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.staging[i].Free()) }()
	}
	if err := l.makeRows(); err != nil {
		return err
	}
	defer func() { err = l.freeRows(err) }()
	l.count()
	w := &d.weights
	w.embedding = l.matrix(0, model.TokenEmbedding)
	w.output = w.embedding
	unread := int64(0)
	if !m.TiedEmbeddings {
		unread = d.arena.Used()
		w.output = l.matrix(0, model.Output)
	}
	w.outNorm = l.vector(0, model.OutputNorm)
	w.layers = make([]deviceLayer, m.Layers)
	for i := range w.layers {
		y := &w.layers[i]
		y.attnNorm, y.ffnNorm = l.vector(i, model.AttnNorm), l.vector(i, model.FFNNorm)
		if m.QKVBias {
			y.bias = l.vector(i, model.AttnQBias, model.AttnKBias, model.AttnVBias)
		}
		if m.QKNorm {
			y.qNorm, y.kNorm = l.vector(i, model.AttnQNorm), l.vector(i, model.AttnKNorm)
		}
		y.qkv, y.o = l.projection(i, model.AttnQ, model.AttnK, model.AttnV), l.projection(i, model.AttnO)
		y.gateUp, y.down = l.projection(i, model.FFNGate, model.FFNUp), l.projection(i, model.FFNDown)
	}
	w.bytes = d.arena.Used() - unread
	if l.err == nil {
		l.err = d.makeFP8()
	}
	return errors.Join(l.err, d.stream.Wait()) // before the staging is freed
}

// count sums what is to be loaded.
func (l *loader) count() {
	for _, r := range l.m.Roles() {
		layers := 1
		if r.PerLayer() {
			layers = l.m.Layers
		}
		for i := range layers {
			if t, ok := l.src.Tensor(l.m.TensorName(r, i)); ok {
				l.total += int64(t.Bytes())
			}
		}
	}
}

// tensors finds tensors by role and allocates memory for all of them in a row,
// size bytes an element.
func (l *loader) tensors(layer, size int, roles []model.Role) ([]weights.Tensor, cudakernels.Ptr) {
	return l.allocate(layer, roles, func(t weights.Tensor) int { return size * t.Elems() })
}

// allocate is tensors for any size of a tensor. After an error there are none.
func (l *loader) allocate(layer int, roles []model.Role, size func(weights.Tensor) int) ([]weights.Tensor, cudakernels.Ptr) {
	if l.err == nil {
		l.err = l.ctx.Err()
	}
	if l.err != nil {
		return nil, 0
	}
	var all []weights.Tensor
	var bytes int64
	for _, r := range roles {
		t, err := l.m.Tensor(l.src, r, layer)
		if err != nil {
			l.err = err
			return nil, 0
		}
		all = append(all, t)
		bytes += int64(size(t))
	}
	p, err := l.d.arena.Alloc(bytes)
	if err != nil {
		l.err = fmt.Errorf("tensor %q, after %.1f MiB: %w", all[0].Name, float64(l.d.arena.Used())/(1<<20), err)
		return nil, 0
	}
	return all, cudakernels.Ptr(p)
}

// matrix uploads projections, one below the other, as bfloat16.
func (l *loader) matrix(layer int, roles ...model.Role) cudakernels.Ptr {
	tensors, p := l.tensors(layer, 2, roles)
	at := cudadrv.Ptr(p)
	for _, t := range tensors {
		if t.Generated != nil {
			l.loaded(t, t.Bytes(), l.d.generate(at, t.Generated, 0, t.Elems()))
			at += cudadrv.Ptr(2 * t.Elems())
			continue
		}
		// Whole blocks of every type, so that a piece is decoded by itself.
		const piece = stagingBytes / 2
		for from, n := 0, t.Elems(); from < n && l.err == nil; from += piece {
			l.piece(at+cudadrv.Ptr(2*from), t, from, min(from+piece, n))
		}
		at += cudadrv.Ptr(2 * t.Elems())
	}
	return p
}

// piece uploads elements of a tensor. One half of the staging is filled while
// the other is copied.
func (l *loader) piece(at cudadrv.Ptr, t weights.Tensor, from, to int) {
	half := l.staging[l.next]
	l.next ^= 1
	err := toBF16(cudadrv.PinnedSlice[uint16](half, 0, to-from), t, from)
	if err == nil {
		err = l.d.stream.Wait()
	}
	if err == nil {
		err = l.d.stream.Upload(at, half, 0, 2*(to-from))
	}
	l.loaded(t, t.Type.RowBytes(to-from), err)
}

// vector uploads norms or biases, one after the other, as float32.
func (l *loader) vector(layer int, roles ...model.Role) cudakernels.Ptr {
	tensors, p := l.tensors(layer, 4, roles)
	at := cudadrv.Ptr(p)
	for _, t := range tensors {
		if l.err != nil {
			return 0
		}
		n := t.Elems()
		err := l.d.stream.Wait() // for the half that is about to be written
		if err == nil {
			err = weights.Dequantize(cudadrv.PinnedSlice[float32](l.staging[l.next], 0, n), t.Type, t.Data)
		}
		if err == nil {
			err = l.d.stream.Upload(at, l.staging[l.next], 0, 4*n)
		}
		l.next ^= 1
		l.loaded(t, len(t.Data), err)
		at += cudadrv.Ptr(4 * n)
	}
	return p
}

func (l *loader) loaded(t weights.Tensor, bytes int, err error) {
	if err != nil {
		l.err = errors.Join(l.err, fmt.Errorf("uploading tensor %q: %w", t.Name, err))
		return
	}
	l.done += int64(bytes)
	if l.d.opts.Progress != nil {
		l.d.opts.Progress(l.done, l.total)
	}
}

// convertPiece is what a worker converts at a time: whole blocks of every type,
// and little enough to stay in its cache.
const convertPiece = 32 << 10

// toBF16 converts the elements of t from from on, with all processors.
func toBF16(dst []uint16, t weights.Tensor, from int) error {
	pieces := (len(dst) + convertPiece - 1) / convertPiece
	workers := min(runtime.GOMAXPROCS(0), pieces)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			scratch := make([]float32, min(convertPiece, len(dst)))
			for i := w; i < pieces; i += workers {
				a, b := i*convertPiece, min((i+1)*convertPiece, len(dst))
				src := t.Data[t.Type.RowBytes(from+a):t.Type.RowBytes(from+b)]
				if t.Type == weights.BF16 {
					copyBF16(dst[a:b], src)
					continue
				}
				if err := weights.Dequantize(scratch[:b-a], t.Type, src); err != nil {
					errs[w] = err
					return
				}
				for j, x := range scratch[:b-a] {
					dst[a+j] = weights.Float32ToBF16(x)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// copyBF16 copies little-endian elements as they are.
func copyBF16(dst []uint16, src []byte) {
	for i := range dst {
		dst[i] = binary.LittleEndian.Uint16(src[2*i:])
	}
}
