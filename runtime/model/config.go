// Package model describes the Llama family: the numbers of an architecture,
// which tensors it wants under which names, how its rotary embedding is scaled,
// and what a forward pass computes (the float64 reference that every backend is
// held against). It computes nothing fast.
package model

import "github.com/moaserve/moaserve/runtime/plan"

// Config is the architecture of one model, read from GGUF metadata or from a
// Hugging Face config.json.
type Config struct {
	Name         string // for people; may be empty
	Architecture string // "llama", "mistral", "qwen2", "qwen3"

	Layers  int
	Hidden  int // width of the residual stream
	Heads   int // query heads
	KVHeads int // key/value heads; Heads is a multiple of it
	HeadDim int // not always Hidden/Heads (Qwen3)
	FFN     int // width of the gated feed-forward network
	Vocab   int
	Context int // trained context, in tokens

	NormEps float32 // epsilon of every RMSNorm
	Rope    Rope

	TiedEmbeddings bool // the output projection is the token embedding
	QKVBias        bool // Qwen2
	QKNorm         bool // Qwen3: RMSNorm over head_dim of each query and key head
}

// Group returns the number of query heads that share a KV head.
func (c *Config) Group() int { return c.Heads / c.KVHeads }

// Shape returns the part of the configuration that a plan must fit.
func (c *Config) Shape() plan.Shape {
	return plan.Shape{
		Name: c.Name, Architecture: c.Architecture, Layers: c.Layers, QueryHeads: c.Heads,
		KVHeads: c.KVHeads, HeadDim: c.HeadDim, Context: c.Context,
	}
}

// Rope is the rotary position embedding: the rotation frequency of every pair
// of a head's dimensions, with any context scaling already applied.
type Rope struct {
	// Frequencies has HeadDim/2 entries (fewer under partial rotation, where
	// the remaining dimensions are left as they are): pair i of the query or key
	// at position t is rotated by t*Frequencies[i] radians.
	Frequencies []float64
	// Scale multiplies the rotated query and key (YaRN's attention factor); 1
	// elsewhere.
	Scale float64
	// Interleaved pairs dimensions (2i, 2i+1), as GGUF's llama files store
	// them; otherwise pair i is (i, i+len(Frequencies)), as Hugging Face's do.
	Interleaved bool
}

// Role names what a tensor is for, independently of file formats.
type Role uint8

// The roles of the Llama family's tensors. Shapes are [out, in].
const (
	TokenEmbedding Role = iota // [Vocab, Hidden]
	OutputNorm                 // [Hidden]
	Output                     // [Vocab, Hidden]; TokenEmbedding when tied
	AttnNorm                   // [Hidden]
	AttnQ                      // [Heads*HeadDim, Hidden]
	AttnK                      // [KVHeads*HeadDim, Hidden]
	AttnV                      // [KVHeads*HeadDim, Hidden]
	AttnO                      // [Hidden, Heads*HeadDim]
	AttnQBias                  // [Heads*HeadDim]
	AttnKBias                  // [KVHeads*HeadDim]
	AttnVBias                  // [KVHeads*HeadDim]
	AttnQNorm                  // [HeadDim]
	AttnKNorm                  // [HeadDim]
	FFNNorm                    // [Hidden]
	FFNGate                    // [FFN, Hidden]
	FFNUp                      // [FFN, Hidden]
	FFNDown                    // [Hidden, FFN]
)

// Model is a configuration together with the tensor names of the file it came
// from.
type Model struct {
	Config
	names func(r Role, layer int) string
}

// TensorName returns the name, in the model's own file, of the tensor with that
// role. layer is ignored for the roles outside the layers. Output of a model
// with tied embeddings is the name of TokenEmbedding.
func (m *Model) TensorName(r Role, layer int) string {
	if r == Output && m.TiedEmbeddings {
		r = TokenEmbedding
	}
	return m.names(r, layer)
}
