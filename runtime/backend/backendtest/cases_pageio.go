package backendtest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/weights"
)

// pageIOCases hold for pools that implement backend.PageIO.
func (s *suite) pageIOCases() []testCase {
	return []testCase{
		{"pages answer the same on another device, in other places", s.movedPages},
		{"a page is copied whole or not at all", s.pageCopies},
		{"the format of pages tells their types apart", s.pageFormats},
	}
}

// pageIO returns the pool's PageIO; a pool without one has nothing to be tested.
func (d *driver) pageIO() backend.PageIO {
	d.Helper()
	p, ok := d.pool.(backend.PageIO)
	if !ok {
		d.Skip("the pool does not implement backend.PageIO")
	}
	return p
}

// readPages copies the pages of a snapshot in the order of AppendPages.
func readPages(d *driver, n *kv.Snapshot) []byte {
	d.Helper()
	pool, size := d.pageIO(), d.dev.PageBytes()
	image := make([]byte, 0, n.Pages()*size)
	for _, page := range n.AppendPages(nil) {
		image = image[:len(image)+size]
		if err := pool.ReadPage(page, image[len(image)-size:]); err != nil {
			d.Fatalf("ReadPage(%d): %v", page, err)
		}
	}
	return image
}

// writePages fills the pages of a snapshot with what readPages returned.
func writePages(d *driver, n *kv.Snapshot, image []byte) {
	d.Helper()
	pool, size := d.pageIO(), d.dev.PageBytes()
	for i, page := range n.AppendPages(nil) {
		if err := pool.WritePage(page, image[i*size:(i+1)*size]); err != nil {
			d.Fatalf("WritePage(%d): %v", page, err)
		}
	}
}

// movedPages computes a prefix on one device and what follows on another, as
// servers do that are started one after the other.
func (s *suite) movedPages(t testing.TB) {
	const n, prefix = 160, 128
	for _, kvType := range s.o.KV {
		m, src := modeltest.New(t, s.small())
		prompt := tokens(n, m.Vocab, 21)
		one, other := s.load(t, m, src, kvType), s.load(t, m, src, kvType)
		for _, name := range []string{"mixed", "one block"} {
			l := plans(m)[name].Bind(n)
			want := s.alone(t, one, l, prompt, 100)

			d := drive(t, one, l.PeakPages(0, n, maxBatchTokens))
			from := d.pageIO().Format()
			x := d.start(0, l, prompt)
			d.step(chunk{x, 100})
			d.step(chunk{x, prefix - 100})
			kept := x.kv.Snapshot()
			image := readPages(d, kept)
			if again := readPages(d, kept); !bytes.Equal(image, again) {
				t.Errorf("plan %s: a page has other bytes when it is read again", name)
			}
			x.kv.Release()

			// A larger pool deals out other pages, all of them used before.
			e := drive(t, other, l.PeakPages(0, n, maxBatchTokens)+l.Heads())
			if to := e.pageIO().Format(); to != from {
				t.Fatalf("the same pages have the formats %q and %q", from, to)
			}
			full := e.pages.Pages() / l.Heads() * plan.BlockSize
			e.finish(e.start(0, plan.NewDense(m.Shape()).Bind(full), tokens(full, m.Vocab, 22)), maxBatchTokens)
			moved, err := kv.NewSnapshot(e.pages, kept.Layout(), kept.Tokens(), kept.Starts())
			if err != nil {
				t.Fatal(err)
			}
			writePages(e, moved, image)
			if again := readPages(e, moved); !bytes.Equal(image, again) {
				t.Errorf("plan %s: a page has other bytes than were written", name)
			}
			kept.Release()
			d.close()

			got := e.finish(e.follow(3, l, prompt, moved), 20)
			moved.Release()
			e.close()
			s.same(t, fmt.Sprintf("cache of type %d, plan %s, after moved pages", kvType, name), got[prefix:], want[prefix:], kvType, weights.F32, m.Layers)
		}
	}
}

// pageCopies hands over wrong pages and buffers of a wrong size.
func (s *suite) pageCopies(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	dev := s.load(t, m, src, s.o.KV[0])
	d := drive(t, dev, 4)
	pool, size := d.pageIO(), dev.PageBytes()
	// A page that was never written may hold anything, and keeps it.
	before, after := make([]byte, size), make([]byte, size)
	if err := pool.ReadPage(3, before); err != nil {
		t.Fatalf("ReadPage of the last page: %v", err)
	}
	for _, c := range []struct {
		page int32
		size int
	}{{-1, size}, {4, size}, {1 << 30, size}, {3, size - 1}, {3, size + 1}, {3, 0}} {
		b := bytes.Repeat([]byte{0xa5}, c.size)
		if pool.ReadPage(c.page, b) == nil || pool.WritePage(c.page, b) == nil {
			t.Errorf("%d bytes of page %d of 4 pages of %d were copied", c.size, c.page, size)
		}
	}
	if err := pool.ReadPage(3, after); err != nil || !bytes.Equal(before, after) {
		t.Errorf("refused copies changed a page (%v)", err)
	}
	d.close()
}

// pageFormats compares the formats of caches of every type.
func (s *suite) pageFormats(t testing.TB) {
	m, src := modeltest.New(t, s.small())
	seen := map[string]backend.KVType{}
	for _, kvType := range s.o.KV {
		d := drive(t, s.load(t, m, src, kvType), 1)
		f := d.pageIO().Format()
		if other, ok := seen[f]; ok || f == "" {
			t.Errorf("caches of types %d and %d have the format %q", other, kvType, f)
		}
		seen[f] = kvType
		d.close()
	}
}
