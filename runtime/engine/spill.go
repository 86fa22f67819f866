package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/kv/spill"
	"github.com/moaserve/moaserve/runtime/plan"
)

// spillTime bounds how long a closing engine writes prefixes: a few gigabytes on a
// slow disk, and less than the half minute after which supervisors lose patience.
const spillTime = 20 * time.Second

func openSpill(pool backend.Pool, pageBytes int, o Options) (*spill.Store, error) {
	if o.OpenSpill == nil || o.NoPrefixCache {
		return nil, nil
	}
	pages, ok := pool.(backend.PageIO)
	if !ok {
		return nil, fmt.Errorf("keeping prefixes on disk: %w", backend.ErrNotSupported)
	}
	return o.OpenSpill(pages.Format(), pageBytes)
}

// spillEvicted writes a prefix that is about to go. Only lasting ones are worth
// a disk's time: a long prompt leaves a prefix every few hundred tokens, most of which
// nobody ever continues.
func (e *Engine) spillEvicted(x kv.Kept) {
	if e.spill != nil && (x.Lasting || x.Pinned) && e.spill.Admit(x.Key, x.Snapshot.Pages()) {
		e.spillPrefix(x)
	}
}

// spillPrefix copies the pages of a prefix and hands them to the store.
func (e *Engine) spillPrefix(x kv.Kept) {
	io, size := e.pool.(backend.PageIO), e.dev.PageBytes()
	image := &spill.Image{Tokens: x.Snapshot.Tokens(), Starts: x.Snapshot.Starts(), Pages: make([]byte, x.Snapshot.Pages()*size)}
	for i, page := range x.Snapshot.AppendPages(nil) {
		if err := io.ReadPage(page, image.Pages[i*size:(i+1)*size]); err != nil {
			e.o.Logger.Warn("a prefix cannot be kept on disk", "tokens", image.Tokens, "error", err)
			return
		}
	}
	e.spill.Put(x.Key, image)
}

// spillAll writes the lasting prefixes when the engine ends, as many as the store
// holds, the most useful last, so that the store gives it up last.
func (e *Engine) spillAll() {
	if e.spill == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), spillTime)
	defer cancel()
	var chosen []kv.Kept
	room := e.spill.MaxBytes()
	e.prefixes.All(func(x kv.Kept) bool {
		if x.Lasting || x.Pinned {
			room -= int64(x.Snapshot.Pages() * e.dev.PageBytes())
			if room >= 0 {
				chosen = append(chosen, x)
			}
		}
		return room > 0
	})
	for i, x := range slices.Backward(chosen) {
		if e.spill.Has(x.Key) {
			continue
		}
		// The queue has room for some of them at a time.
		if !e.spill.Admit(x.Key, x.Snapshot.Pages()) {
			if e.spill.Flush(ctx) != nil {
				e.o.Logger.Warn("not all prefixes could be kept on disk", "left", i+1, "of", len(chosen))
				break
			}
			if !e.spill.Admit(x.Key, x.Snapshot.Pages()) {
				e.o.Logger.Warn("a prefix is too long to be kept on disk", "tokens", x.Snapshot.Tokens())
				continue
			}
		}
		e.spillPrefix(x)
	}
	if err := e.spill.Flush(ctx); err != nil {
		e.o.Logger.Warn("keeping prefixes on disk", "error", err)
	}
}

// restores reports whether a waiting sequence should go on waiting because a longer
// prefix of it than is in the cache is being read from disk. It begins to read, one
// prefix at a time: two would take twice the memory and not less time.
func (e *Engine) restores(s *sequence) bool {
	if e.spill == nil || s.req.Logits || s.unrestored {
		return false
	}
	usable := s.usableKeys()
	have := len(usable)
	for have > 0 && !e.prefixes.Has(usable[have-1]) && !e.spill.Has(usable[have-1]) {
		have--
	}
	if have == 0 || e.prefixes.Has(usable[have-1]) {
		return false
	}
	if e.restoring {
		return true
	}
	e.restoring = true
	key := usable[have-1]
	go func() {
		image, err := e.spill.Load(key)
		select {
		case e.questions <- func() { e.restored(s, key, image, err) }:
		case <-e.done:
		}
	}()
	return true
}

// restored puts a prefix that was read from disk into the cache. Whatever is wrong,
// the sequence that waits for it is computed from what there is.
func (e *Engine) restored(s *sequence, key kv.Key, image *spill.Image, err error) {
	e.restoring = false
	if err == nil && !e.prefixes.Has(key) {
		err = e.restore(s.layout, key, image)
	}
	if err != nil {
		s.unrestored = true
		e.o.Logger.Info("a prefix kept on disk could not be used", "error", err)
	}
}

// restore takes pages for an image and fills them.
func (e *Engine) restore(l *plan.Layout, key kv.Key, image *spill.Image) error {
	need, err := kv.PagesOf(image.Tokens, image.Starts)
	if err != nil {
		return err
	}
	if e.committed+need > e.pages.Pages() {
		return fmt.Errorf("%d pages are needed: %w", need, kv.ErrNoPages) // or it would be evicted at once
	}
	e.prefixes.Reclaim(need)
	n, err := kv.NewSnapshot(e.pages, l, image.Tokens, image.Starts)
	if err != nil {
		return err
	}
	io, size := e.pool.(backend.PageIO), e.dev.PageBytes()
	if !n.Fits(l) || len(image.Pages) != need*size {
		err = errors.New("it is no prefix of this plan")
	}
	for i, page := range n.AppendPages(nil) {
		if err == nil {
			err = io.WritePage(page, image.Pages[i*size:(i+1)*size])
		}
	}
	if err != nil {
		n.Release()
		return err
	}
	e.prefixes.Add(key, n)
	return nil
}
