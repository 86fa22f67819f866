package attention

import (
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/backend"
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
	case c.KV != backend.KVF16 && c.KV != backend.KVBF16:
		return fmt.Errorf("attention: unknown KV type %d: %w", c.KV, backend.ErrNotSupported)
	}
	return nil
}

// group is the number of query heads that share a KV head.
func (c *Config) group() int { return c.Heads / c.KVHeads }

// valueCols is the head dimension rounded up to whole panels.
func (c *Config) valueCols() int { return (c.HeadDim + panelWidth - 1) &^ (panelWidth - 1) }

// PageBytes is the size of one page.
func (c *Config) PageBytes() int { return 2 * c.pageElements() }

// The parts of a page, in elements.
func (c *Config) pageElements() int { return c.keyElements() + pageTokens*c.valueCols() }
func (c *Config) keyElements() int  { return pageTokens * c.HeadDim }
func (c *Config) keyPanel() int     { return panelWidth * c.HeadDim }

const valuePanel = panelWidth * pageTokens

// Cache is the memory of KV pages: the 16-bit keys and values of one block of 64
// tokens of one KV head of one layer each.
//
// A page holds the keys first, as four panels of 16 tokens, [HeadDim][16] each,
// so that scores are computed for 16 keys at once from contiguous memory; then
// the values, as panels of 16 dimensions, [64][16] each, the last one padded.
type Cache struct {
	config Config
	ops    vec.Ops
	pages  int
	memory []uint16
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
	memory, free, err := allocate(pages * config.pageElements())
	if err != nil {
		return nil, fmt.Errorf("attention: allocate %d KV pages of %d bytes: %w", pages, config.PageBytes(), err)
	}
	return &Cache{config: config, ops: vec.For(config.ISA), pages: pages, memory: memory, free: free}, nil
}

// Pages returns the number of pages.
func (c *Cache) Pages() int { return c.pages }

// PageBytes returns the size of a page.
func (c *Cache) PageBytes() int { return c.config.PageBytes() }

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
// largest finite element are clamped to it. Any number of goroutines may append
// to different slots.
func (c *Cache) Append(page int32, slot int, key, value []float32) {
	d := c.config.HeadDim
	memory := c.page(page)
	var buffer [maxHeadDim]uint16
	half := buffer[:d]

	c.encode(half, key)
	panel := memory[slot/panelWidth*c.config.keyPanel():][:c.config.keyPanel()]
	at := slot % panelWidth
	for len(half) >= 4 {
		// One bounds check for four of these scattered stores, which are most
		// of the work.
		column := panel[at : at+3*panelWidth+1]
		column[0], column[panelWidth] = half[0], half[1]
		column[2*panelWidth], column[3*panelWidth] = half[2], half[3]
		at += 4 * panelWidth
		half = half[4:]
	}

	half = buffer[:d]
	c.encode(half, value)
	values := memory[c.config.keyElements():]
	for at := slot * panelWidth; len(half) > 0; at += valuePanel {
		n := copy(values[at:at+panelWidth], half)
		half = half[n:]
	}
}

func (c *Cache) encode(dst []uint16, src []float32) {
	if c.config.KV == backend.KVBF16 {
		c.ops.ToBF16(dst, src)
	} else {
		c.ops.ToF16(dst, src)
	}
}

func (c *Cache) decode(dst []float32, src []uint16) {
	if c.config.KV == backend.KVBF16 {
		c.ops.FromBF16(dst, src)
	} else {
		c.ops.FromF16(dst, src)
	}
}

func (c *Cache) page(page int32) []uint16 {
	n := c.config.pageElements()
	at := int(page) * n
	return c.memory[at : at+n : at+n]
}
