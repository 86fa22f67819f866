package spill

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moaserve/moaserve/runtime/kv"
)

const lockName = "lock"

// claim creates the directory, whose files are as private as the texts that they
// were made from, and locks it.
func (s *Store) claim() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("creating the directory of kept prefixes: %w", err)
	}
	if info, err := os.Stat(s.dir); err == nil && info.Mode().Perm()&0o077 != 0 {
		s.o.Logger.Warn("others may look into the directory of kept prefixes", "directory", s.dir, "mode", info.Mode().Perm().String())
	}
	f, err := lock(s.dir, filepath.Join(s.dir, lockName))
	if err != nil {
		if errors.Is(err, ErrLocked) {
			return err
		}
		return fmt.Errorf("the directory of kept prefixes cannot be used: %w", err)
	}
	// The lock file may exist in a directory that is read-only by now.
	probe, err := os.CreateTemp(s.dir, "probe*"+temporary)
	if err == nil {
		_ = probe.Close()
		err = os.Remove(probe.Name())
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("the directory of kept prefixes cannot be written to: %w", err)
	}
	s.lock = f
	return nil
}

// found is a usable file.
type found struct {
	key  kv.Key
	size int64
	used time.Time
}

// scan fills the index from the directory. Nobody else uses the store yet.
func (s *Store) scan() error {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("reading the directory of kept prefixes: %w", err)
	}
	var files []found
	foreign := 0
	for _, d := range list {
		path := filepath.Join(s.dir, d.Name())
		if stem, ok := strings.CutSuffix(d.Name(), temporary); ok {
			if _, ours := keyOf(stem); ours && d.Type().IsRegular() {
				s.o.Logger.Warn("dropping a kept prefix that was not written to its end", "file", path)
				s.delete(path)
			}
			continue
		}
		key, ok := keyOf(d.Name())
		if !ok {
			continue
		}
		if !d.Type().IsRegular() {
			s.o.Logger.Warn("not a file of a kept prefix", "file", path, "type", d.Type().String())
			continue
		}
		f, err := s.inspect(path, key)
		switch {
		case err == nil:
			files = append(files, f)
			continue
		case errors.Is(err, errForeign):
			// A change of the model concerns all files: one warning is enough.
			if foreign++; foreign == 1 {
				s.o.Logger.Warn("dropping kept prefixes that were written for something else", "file", path, "error", err)
			}
		default:
			s.count.Damaged++
			s.o.Logger.Warn("dropping the damaged file of a kept prefix", "file", path, "error", err)
		}
		s.delete(path)
	}
	slices.SortFunc(files, func(a, b found) int {
		return cmp.Or(a.used.Compare(b.used), slices.Compare(a.key[:], b.key[:]))
	})
	for _, f := range files {
		s.add(f.key, f.size)
		s.clock = f.used
	}
	s.evict(0)
	s.sweep(s.doomed)
	s.doomed = nil
	s.o.Logger.Info("kept prefixes", "directory", s.dir, "files", len(s.index), "bytes", s.count.Bytes,
		"foreign", foreign, "damaged", s.count.Damaged, "evicted", s.count.Evicted)
	return nil
}

// inspect reads the header of a file.
func (s *Store) inspect(path string, key kv.Key) (found, error) {
	f, err := os.Open(path)
	if err != nil {
		return found{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return found{}, err
	}
	h, err := readHeader(f, info.Size())
	if err != nil {
		return found{}, err
	}
	return found{key, info.Size(), info.ModTime()}, s.mine(h, key)
}

// sweep deletes files.
func (s *Store) sweep(keys []kv.Key) {
	for _, key := range keys {
		s.delete(s.path(key))
	}
}

// delete deletes a file. One that stays is found by the next Open.
func (s *Store) delete(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.o.Logger.Warn("a file of a kept prefix cannot be deleted", "file", path, "error", err)
	}
}
