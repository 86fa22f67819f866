package cpu

import (
	"fmt"
	"runtime"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/plan"
)

var _ backend.PageIO = (*pool)(nil)

// pageVersion is raised when a change to the kernels or to the layout of a page
// changes the bytes that the same tokens leave in it.
const pageVersion = 1

// Format names the architecture and the instruction set, whose kernels round in
// orders of their own (the sum of a softmax has as many parts as a vector has
// lanes), the types of the cache and of the activations, and the page.
func (p *pool) Format() string {
	d := p.device
	return fmt.Sprintf("cpu/%s-%v/kv-%s/act-%s/hd%d/block%d/v%d", runtime.GOARCH, d.isa.Resolve(),
		kvName(d.opts.KV), activationsName(d.opts.Activations), d.cfg.HeadDim, plan.BlockSize, pageVersion)
}

// ReadPage copies a page to dst.
func (p *pool) ReadPage(page int32, dst []byte) error { return p.cache.ReadPage(page, dst) }

// WritePage copies src to a page.
func (p *pool) WritePage(page int32, src []byte) error { return p.cache.WritePage(page, src) }

func kvName(t backend.KVType) string {
	switch t {
	case backend.KVF16:
		return "f16"
	case backend.KVBF16:
		return "bf16"
	case backend.KVQ8_0:
		return "q8_0"
	}
	return fmt.Sprintf("type%d", t)
}

func activationsName(p backend.Precision) string {
	switch p {
	case backend.Int8:
		return "int8"
	case backend.Int16:
		return "int16"
	}
	return fmt.Sprintf("precision%d", p)
}
