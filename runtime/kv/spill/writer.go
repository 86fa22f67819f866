package spill

import (
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/moaserve/moaserve/runtime/kv"
)

// work is what the writer does next, in this order.
type work struct {
	doomed  []kv.Key             // files to delete
	touched map[kv.Key]time.Time // files whose times to set
	job     job                  // an image to write or a Flush to answer, if any
}

// write is the goroutine that changes the directory. It ends when the store is
// closed, after the last deletion.
func (s *Store) write() {
	defer close(s.done)
	failing := false
	for {
		w, ok := s.next()
		s.sweep(w.doomed)
		for key, used := range w.touched {
			// Only the order of eviction after a restart depends on it.
			_ = os.Chtimes(s.path(key), used, used)
		}
		if !ok {
			return
		}
		switch {
		case w.job.flushed != nil:
			w.job.flushed <- nil
		case w.job.image != nil:
			err := s.keep(w.job.key, w.job.image)
			// A full disk is reported once, not with every prefix.
			if err != nil && !failing {
				s.o.Logger.Warn("a prefix cannot be written", "directory", s.dir, "error", err)
			} else if err == nil && failing {
				s.o.Logger.Info("prefixes can be written again", "directory", s.dir)
			}
			failing = err != nil
		}
	}
}

// next waits for work. It returns false with the last of it when the store is
// closed: the jobs that are left are done with then.
func (s *Store) next() (work, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && len(s.doomed) == 0 && len(s.touched) == 0 && !s.closed {
		s.wake.Wait()
	}
	w := work{doomed: s.takeDoomed()}
	if len(s.touched) > 0 {
		w.touched, s.touched = s.touched, make(map[kv.Key]time.Time)
	}
	if s.closed {
		for _, j := range s.queue {
			if j.flushed != nil {
				j.flushed <- fmt.Errorf("spill: %w", ErrClosed)
			} else if s.settle(j.key, j.image) {
				s.count.Dropped++
			}
		}
		s.queue = nil
		return w, false
	}
	if len(s.queue) > 0 {
		w.job, s.queue[0] = s.queue[0], job{}
		s.queue = s.queue[1:]
	}
	return w, true
}

// takeDoomed returns the files to delete now. A prefix that was kept again since
// it was given up has a new file of the same name.
func (s *Store) takeDoomed() []kv.Key {
	keys := s.doomed[:0]
	for _, key := range s.doomed {
		if s.index[key] == nil {
			keys = append(keys, key)
		}
	}
	s.doomed = nil
	return keys
}

// settle ends the wait of an image, however it ended, and reports whether it was
// still wanted.
func (s *Store) settle(key kv.Key, m *Image) bool {
	s.count.Queued -= int64(len(m.Pages))
	wanted := s.waiting[key] == m
	if wanted {
		delete(s.waiting, key)
	}
	return wanted
}

// keep writes an image, after making room for it.
func (s *Store) keep(key kv.Key, m *Image) error {
	h := header{
		key: key, tokens: m.Tokens, starts: m.Starts, pageBytes: s.o.PageBytes,
		checksum: crc32.Checksum(m.Pages, castagnoli), format: s.o.Format, model: s.o.Model,
	}
	size := int64(h.size()) + int64(len(m.Pages))

	s.mu.Lock()
	if s.waiting[key] != m || size > s.o.MaxBytes {
		if s.settle(key, m) {
			s.count.Dropped++
		}
		s.mu.Unlock()
		return nil
	}
	s.evict(size)
	doomed := s.takeDoomed()
	s.mu.Unlock()

	s.sweep(doomed)
	path := s.path(key)
	err := s.create(path+temporary, &h, m.Pages)
	if err == nil {
		err = os.Rename(path+temporary, path)
	}
	if err != nil {
		s.delete(path + temporary)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	switch wanted := s.settle(key, m); {
	case err != nil:
		s.count.Failed++
	case wanted:
		s.add(key, size)
		s.count.Written++
	default: // removed while it was written
		s.doomed = append(s.doomed, key)
	}
	return err
}

// create writes a file and waits for the disk: a name must not survive a crash
// without its contents. That the name itself survives is not worth a second wait.
func (s *Store) create(path string, h *header, pages []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if err == nil {
			s.mu.Lock()
			now := s.stamp()
			s.mu.Unlock()
			err = os.Chtimes(path, now, now)
		}
	}()
	if _, err = f.Write(h.append(nil)); err != nil {
		return err
	}
	if _, err = f.Write(pages); err != nil {
		return err
	}
	return f.Sync()
}
