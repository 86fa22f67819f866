package attention

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/hugemem"
	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
	"github.com/moaserve/moaserve/runtime/plan"
)

// pageTokens is the number of tokens of a page.
const pageTokens = plan.BlockSize

// maxHeadDim bounds the head dimension: twice the largest in use.
const maxHeadDim = 512

// Config is what attention needs to know of a model. Scores are multiplied by
// Scale, 1/sqrt(HeadDim) for the Llama family, before the softmax.
type Config struct {
	Heads   int // query heads, a multiple of KVHeads
	KVHeads int
	HeadDim int // a multiple of 8, at most 512
	Scale   float32
	KV      backend.KVType
	ISA     isa.ISA // Auto picks the best available
}

// Validate reports what cannot be run; errors.Is finds backend.ErrNotSupported.
func (c *Config) Validate() error {
	switch {
	case c.Heads < 1 || c.KVHeads < 1 || c.Heads%c.KVHeads != 0:
		return fmt.Errorf("attention: %d query heads do not share %d KV heads evenly: %w", c.Heads, c.KVHeads, backend.ErrNotSupported)
	case c.HeadDim < 8 || c.HeadDim > maxHeadDim || c.HeadDim%8 != 0:
		return fmt.Errorf("attention: the head dimension is %d, which is not a multiple of 8 up to %d: %w", c.HeadDim, maxHeadDim, backend.ErrNotSupported)
	case c.Scale <= 0:
		return fmt.Errorf("attention: the scale is %v: %w", c.Scale, backend.ErrNotSupported)
	case c.KV == backend.KVQ8_0 && c.HeadDim%vec.Q8Block != 0:
		return fmt.Errorf("attention: the head dimension is %d; KV pages in q8_0 need a multiple of %d: %w", c.HeadDim, vec.Q8Block, backend.ErrNotSupported)
	case c.KV > backend.KVQ8_0:
		return fmt.Errorf("attention: no KV pages in %v: %w", c.KV, backend.ErrNotSupported)
	}
	return nil
}

// group is the number of query heads that share a KV head.
func (c *Config) group() int { return c.Heads / c.KVHeads }

// valueCols is the head dimension rounded up to whole panels.
func (c *Config) valueCols() int { return (c.HeadDim + panelWidth - 1) &^ (panelWidth - 1) }

// keyElements is the number of elements of a page's keys.
func (c *Config) keyElements() int { return pageTokens * c.HeadDim }

// valuePanel is the number of elements of a panel of values.
const valuePanel = panelWidth * pageTokens

// PageBytes is the size of one page.
func (c *Config) PageBytes() int { return c.format().bytes() }

// format is how a page holds the keys and values of one block of 64 tokens.
//
// Whatever the type, keys come as four panels of 16 tokens, [HeadDim][16] each,
// so that scores are computed for 16 keys at once from contiguous memory; values
// as panels of 16 dimensions, [64][16] each, the last one padded.
type format interface {
	// bytes is the size of a page, even.
	bytes() int
	// element is the size of an element of the panels, scales apart.
	element() int
	// panels returns the first panels of keys and of values in a page, and their
	// scales, keys' first, for float32 to be multiplied with; nil without.
	panels(page []byte) (keys, values unsafe.Pointer, scales []uint16)
	// append writes the key and the value of a token into a slot.
	append(page []byte, slot int, key, value []float32)
	// widen writes the panels of keys and of values in float32.
	widen(keys, values []float32, page []byte)
}

// format returns the format of the KV type.
func (c *Config) format() format {
	ops := vec.For(c.ISA)
	if c.KV == backend.KVQ8_0 {
		return &q8Format{headDim: c.HeadDim, ops: ops, kernels: kernelsFor(c.ISA.Resolve())}
	}
	return &halfFormat{headDim: c.HeadDim, cols: c.valueCols(), bf16: c.KV == backend.KVBF16, ops: ops}
}

// Cache is the memory of KV pages: the keys and values of one block of 64 tokens
// of one KV head of one layer each.
type Cache struct {
	config Config
	format format
	ops    vec.Ops
	pages  int
	size   int // bytes of a page
	memory []byte
	free   func() error
}

// NewCache allocates a cache. The operating system hands out the memory when a
// page is first written. Close gives it back.
func NewCache(config Config, pages int) (*Cache, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if pages < 1 {
		return nil, errors.New("attention: a cache needs at least one page")
	}
	f := config.format()
	memory, free, err := hugemem.Map(pages * f.bytes())
	if err != nil {
		return nil, fmt.Errorf("attention: allocate %d KV pages of %d bytes: %w", pages, f.bytes(), err)
	}
	return &Cache{config: config, format: f, ops: vec.For(config.ISA), pages: pages, size: f.bytes(), memory: memory, free: free}, nil
}

// Pages returns the number of pages.
func (c *Cache) Pages() int { return c.pages }

// PageBytes returns the size of a page.
func (c *Cache) PageBytes() int { return c.size }

// Close frees the memory. Nothing may use the cache any more.
func (c *Cache) Close() error {
	c.memory = nil
	if c.free == nil {
		return nil
	}
	free := c.free
	c.free = nil
	return free()
}

// Append writes the key, already rotated, and the value of one token of one KV
// head (HeadDim floats each) into a slot, 0 to 63, of a page. Values beyond the
// largest finite element are clamped to it; in Q8_0, a block of 32 with an
// infinity reads as NaN. Any number of goroutines may append to different slots.
func (c *Cache) Append(page int32, slot int, key, value []float32) {
	c.format.append(c.page(page), slot, key, value)
}

func (c *Cache) page(page int32) []byte {
	at := int(page) * c.size
	return c.memory[at : at+c.size : at+c.size]
}
