package spill

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/moaserve/moaserve/runtime/kv"
)

// Load reads the image of a prefix and marks it as just used. The image of one
// that waits to be written is the same that was Put; the caller must change none.
//
// The error is ErrNotFound, ErrClosed, ErrDamaged, in which case the file has been
// given up, or the operating system's.
func (s *Store) Load(key kv.Key) (*Image, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fmt.Errorf("spill: %w", ErrClosed)
	}
	if m := s.waiting[key]; m != nil {
		s.count.Loaded++
		s.mu.Unlock()
		return m, nil
	}
	e := s.index[key]
	if e == nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("spill: %w", ErrNotFound)
	}
	s.touch(key)
	s.mu.Unlock()

	path := s.path(key)
	m, err := s.read(path, key)
	switch {
	case errors.Is(err, fs.ErrNotExist): // evicted meanwhile, or deleted by hand
		s.forget(key, e, false)
		return nil, fmt.Errorf("spill: %w", ErrNotFound)
	case errors.Is(err, ErrDamaged):
		if s.forget(key, e, true) {
			s.o.Logger.Warn("dropping the damaged file of a kept prefix", "file", path, "error", err)
		}
		return nil, fmt.Errorf("spill: %s: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("spill: %w", err)
	}
	s.mu.Lock()
	s.count.Loaded++
	s.mu.Unlock()
	return m, nil
}

// read reads and verifies a file.
func (s *Store) read(path string, key kv.Key) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	h, err := readHeader(f, info.Size())
	if err == nil {
		err = s.mine(h, key)
	}
	var b []byte
	if err == nil {
		b, err = readPages(f, h)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &Image{Tokens: h.tokens, Starts: h.starts, Pages: b}, nil
}

// mine reports why the pages of a sound file cannot be used.
func (s *Store) mine(h *header, key kv.Key) error {
	switch {
	case h.key != key:
		return errors.New("the file has another prefix's name")
	case h.format != s.o.Format || h.pageBytes != s.o.PageBytes:
		return fmt.Errorf("pages of %d bytes in format %q, not of %d in %q: %w", h.pageBytes, h.format, s.o.PageBytes, s.o.Format, errForeign)
	case h.model != s.o.Model:
		return fmt.Errorf("pages of the model %q, not %q: %w", h.model, s.o.Model, errForeign)
	}
	return nil
}

// forget gives a file up that turned out to be useless, unless it has been given
// up or replaced since it was looked up as e.
func (s *Store) forget(key kv.Key, e *list.Element, damaged bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[key] != e {
		return false
	}
	if damaged {
		s.count.Damaged++
	}
	s.drop(e)
	s.doom(key)
	return true
}
