package synthetic

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"runtime"
	"sync"

	"github.com/moaserve/moaserve/runtime/weights"
)

// Source holds the tensors of a synthetic model: matrices that are generated, and
// norms of ones. It is safe for concurrent reads.
type Source struct {
	tensors []weights.Tensor
	index   map[string]int
	memory  Memory // of the bytes, once they were made
}

var _ weights.Source = (*Source)(nil)

// Memory is where [Source.Materialise] puts the bytes.
type Memory interface {
	// Alloc returns n bytes, aligned to 2.
	Alloc(n int) ([]byte, error)
	// Free gives back everything at once.
	Free() error
}

// newSource lists the tensors under Hugging Face's names.
func newSource(s shape, seed uint64) *Source {
	src := &Source{index: make(map[string]int)}
	q, kv := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	// Rows of embeddings have the unit variance that a trained network's residual
	// stream begins with, as if they were looked up with one input.
	src.matrix("model.embed_tokens.weight", s.Vocab, s.Hidden, 1, seed)
	src.ones("model.norm.weight", s.Hidden)
	src.matrix("lm_head.weight", s.Vocab, s.Hidden, s.Hidden, seed)
	for i := range s.Layers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		src.ones(layer+"input_layernorm.weight", s.Hidden)
		src.ones(layer+"post_attention_layernorm.weight", s.Hidden)
		for _, m := range []struct {
			name    string
			out, in int
		}{
			{"self_attn.q_proj", q, s.Hidden},
			{"self_attn.k_proj", kv, s.Hidden},
			{"self_attn.v_proj", kv, s.Hidden},
			{"self_attn.o_proj", s.Hidden, q},
			{"mlp.gate_proj", s.FFN, s.Hidden},
			{"mlp.up_proj", s.FFN, s.Hidden},
			{"mlp.down_proj", s.Hidden, s.FFN},
		} {
			src.matrix(layer+m.name+".weight", m.out, m.in, m.in, seed)
		}
	}
	return src
}

// matrix adds a generated tensor of variance 1/fanIn: what is normalised to unit
// variance before a product still has it afterwards, and no layer lets the residual
// stream grow by more than about one.
func (s *Source) matrix(name string, rows, cols, fanIn int, seed uint64) {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d/%s", seed, name)
	s.add(weights.Tensor{
		Name: name, Type: weights.BF16, Shape: []int{rows, cols},
		// Numbers evenly spread between -a and a have variance a*a/3.
		Generated: &weights.Generated{Key: h.Sum64(), Scale: float32(math.Sqrt(3 / float64(fanIn)))},
	})
}

// ones adds a norm.
func (s *Source) ones(name string, n int) {
	data := make([]byte, 2*n)
	for i := range n {
		binary.LittleEndian.PutUint16(data[2*i:], weights.Float32ToBF16(1))
	}
	s.add(weights.Tensor{Name: name, Type: weights.BF16, Shape: []int{n}, Data: data})
}

func (s *Source) add(t weights.Tensor) {
	s.index[t.Name] = len(s.tensors)
	s.tensors = append(s.tensors, t)
}

// Tensor returns the tensor of that name. Data of a generated one is nil before
// Materialise.
func (s *Source) Tensor(name string) (weights.Tensor, bool) {
	i, ok := s.index[name]
	if !ok {
		return weights.Tensor{}, false
	}
	return s.tensors[i], true
}

// Names lists all tensors, those outside the layers first.
func (s *Source) Names() []string {
	names := make([]string, len(s.tensors))
	for i, t := range s.tensors {
		names[i] = t.Name
	}
	return names
}

// Bytes returns the size of all tensors.
func (s *Source) Bytes() int64 {
	n := int64(0)
	for _, t := range s.tensors {
		n += int64(t.Bytes())
	}
	return n
}

// Materialise makes the bytes of all tensors, for backends that read them, with all
// processors. memory belongs to the Source from then on. It must have returned before
// other methods are called.
func (s *Source) Materialise(ctx context.Context, memory Memory) error {
	s.memory = memory
	for i := range s.tensors {
		t := &s.tensors[i]
		if t.Generated == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := memory.Alloc(t.Bytes())
		if err != nil {
			return fmt.Errorf("making tensor %q: %w", t.Name, err)
		}
		fill(data, t.Generated)
		t.Data = data
	}
	return nil
}

// fillPiece is what a processor makes at a time: little enough for its cache.
const fillPiece = 16 << 10

// fill makes the elements of data.
func fill(data []byte, g *weights.Generated) {
	elems := len(data) / 2
	pieces := (elems + fillPiece - 1) / fillPiece
	workers := min(runtime.GOMAXPROCS(0), pieces)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var piece [fillPiece]uint16
			for i := w; i < pieces; i += workers {
				from, to := i*fillPiece, min((i+1)*fillPiece, elems)
				g.BF16(piece[:to-from], from)
				for j, x := range piece[:to-from] {
					binary.LittleEndian.PutUint16(data[2*(from+j):], x)
				}
			}
		})
	}
	wg.Wait()
}

// Close frees the bytes, if they were made.
func (s *Source) Close() error {
	if s.memory == nil {
		return nil
	}
	return s.memory.Free()
}
