package backendtest

import (
	"encoding/binary"
	"fmt"
)

// fakeHeader is what a page's bytes begin with: head, block and fill.
const fakeHeader = 3 * 4

// restored is the slot of pages that came from outside: no slot may fill them
// further. The pages of a kept prefix are full.
const restored = -1

// Format tells apart fakes whose pages do not mean the same.
func (p *fakePool) Format() string {
	f := p.fake
	return fmt.Sprintf("fake/%dx%d/v1", f.layers, f.kvHeads)
}

// ReadPage copies a page to dst.
func (p *fakePool) ReadPage(page int32, dst []byte) error {
	if err := p.check(page, dst); err != nil {
		return err
	}
	if p.fake.flush != nil {
		p.fake.flush()
	}
	x := &p.fake.pages[page]
	dst = dst[:0]
	for _, v := range []int32{x.head, x.block, int32(x.filled)} {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
	}
	for _, v := range x.values {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return nil
}

// WritePage copies src to a page.
func (p *fakePool) WritePage(page int32, src []byte) error {
	if err := p.check(page, src); err != nil {
		return err
	}
	if p.fake.flush != nil {
		p.fake.flush()
	}
	number := func(i int) int32 { return int32(binary.LittleEndian.Uint32(src[4*i:])) }
	x := &p.fake.pages[page]
	*x = fakePage{slot: restored, head: number(0), block: number(1), filled: int(number(2))}
	for i := range x.values {
		x.values[i] = binary.LittleEndian.Uint64(src[fakeHeader+8*i:])
	}
	return nil
}

func (p *fakePool) check(page int32, b []byte) error {
	if page < 0 || int(page) >= p.pages || len(b) != p.fake.PageBytes() {
		return fmt.Errorf("fake: %d bytes for page %d; there are %d pages of %d", len(b), page, p.pages, p.fake.PageBytes())
	}
	return nil
}
