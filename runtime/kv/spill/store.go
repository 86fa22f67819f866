// Package spill keeps prefixes of the KV cache in files, so that a server that
// was restarted still answers from a document that it has read before. It moves
// bytes and knows no device: pages come and go as an [Image].
//
// A store is a cache. Whatever is wrong with a file costs the prefix in it and
// nothing else, and a file's pages are used only once all checksums are right.
package spill

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moaserve/moaserve/runtime/kv"
)

// What errors.Is finds in the errors of this package.
var (
	ErrLocked   = errors.New("the directory of kept prefixes is in use by another server")
	ErrNotFound = errors.New("the prefix is not kept")
	ErrDamaged  = errors.New("the file of a kept prefix is damaged")
	ErrClosed   = errors.New("the store of kept prefixes is closed")
)

// DefaultMaxQueued is the default of Options.MaxQueued: some prefixes of a few
// thousand tokens, which a disk writes in a second or less.
const DefaultMaxQueued = 256 << 20

// Options say what a store holds.
type Options struct {
	// MaxBytes bounds the size of all files together. The prefixes that were not
	// used for longest are deleted for new ones.
	MaxBytes int64
	// MaxQueued bounds the bytes that wait to be written; DefaultMaxQueued when 0.
	MaxQueued int64
	// Format, Model and PageBytes are what pages depend on besides the key: the
	// Format of the device's pages (see PageIO in package backend), the identity
	// of the weights and of all else that the model was loaded with, and the size
	// of a page. Files that differ in any are deleted.
	Format, Model string
	PageBytes     int
	// Logger is told of files that are dropped; nil for none.
	Logger *slog.Logger
}

func (o *Options) complete() error {
	switch {
	case o.MaxBytes <= 0 || o.MaxQueued < 0:
		return fmt.Errorf("limits of %d bytes kept and %d queued", o.MaxBytes, o.MaxQueued)
	case o.PageBytes <= 0 || o.PageBytes > math.MaxInt32:
		return fmt.Errorf("pages of %d bytes", o.PageBytes)
	case len(o.Format) > math.MaxUint16 || len(o.Model) > math.MaxUint16:
		return fmt.Errorf("names of %d and %d bytes for the format and the model", len(o.Format), len(o.Model))
	}
	if o.MaxQueued == 0 {
		o.MaxQueued = DefaultMaxQueued
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Stats are a store's counters; those of type uint64 count from Open.
type Stats struct {
	Files   int
	Bytes   int64  // of all files
	Queued  int64  // bytes that wait to be written
	Written uint64 // files
	Loaded  uint64 // images
	Evicted uint64 // files that made room for others
	Dropped uint64 // images that were not written: no room in the queue or at all
	Failed  uint64 // images that could not be written
	Damaged uint64 // files that were found to be damaged
}

// Store is a directory of images, one file each. All methods may be called from
// any goroutine, and none but Load, Flush and Close waits for the disk.
//
// One goroutine, the writer, changes the directory; others only read files. mu
// guards all fields below it and is never held during a system call.
type Store struct {
	dir  string
	o    Options
	lock *os.File
	done chan struct{} // closed when the writer has ended

	mu      sync.Mutex
	wake    sync.Cond // the writer's: there is work, or the store is closed
	index   map[kv.Key]*list.Element
	used    list.List         // of *entry, the latest used first
	waiting map[kv.Key]*Image // queued or being written
	queue   []job
	doomed  []kv.Key             // files to be deleted unless they are in the index again
	touched map[kv.Key]time.Time // files whose times are to be set
	clock   time.Time
	closed  bool
	count   Stats
}

// entry is a file.
type entry struct {
	key  kv.Key
	size int64
}

// job is an image to be written or, when flushed is not nil, the mark of a Flush.
type job struct {
	key     kv.Key
	image   *Image
	flushed chan error
}

// Open makes a store of a directory, which is created when it does not exist, and
// locks it against other processes. Files of earlier runs are found by their
// headers; those that cannot be used are deleted with a warning, and so are the
// least recently used ones beyond MaxBytes. Other files are left alone. It fails,
// with ErrLocked when another store is open, only if the directory itself cannot
// be used.
func Open(dir string, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("spill: %w", err)
	}
	s := &Store{
		dir: dir, o: o, done: make(chan struct{}),
		index: make(map[kv.Key]*list.Element), waiting: make(map[kv.Key]*Image), touched: make(map[kv.Key]time.Time),
	}
	s.wake.L = &s.mu
	if err := s.claim(); err != nil {
		return nil, fmt.Errorf("spill: %w", err)
	}
	if err := s.scan(); err != nil {
		_ = s.lock.Close()
		return nil, fmt.Errorf("spill: %w", err)
	}
	go s.write()
	return s, nil
}

// Has reports whether a prefix is kept or about to be, without using it.
func (s *Store) Has(key kv.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has(key)
}

func (s *Store) has(key kv.Key) bool { return s.index[key] != nil || s.waiting[key] != nil }

// Keys returns the keys of all files, the latest used first.
func (s *Store) Keys() []kv.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]kv.Key, 0, len(s.index))
	for e := s.used.Front(); e != nil; e = e.Next() {
		keys = append(keys, e.Value.(*entry).key)
	}
	return keys
}

// MaxBytes returns the bound of all files together.
func (s *Store) MaxBytes() int64 { return s.o.MaxBytes }

// Stats returns the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.count
	n.Files = len(s.index)
	return n
}

// Admit reports whether Put would write an image of that many pages, so that
// nobody copies pages in vain. A prefix that is kept already is marked as just
// used; any other refusal counts as dropped.
func (s *Store) Admit(key kv.Key, pages int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.has(key) {
		s.touch(key)
		return false
	}
	return s.admit(int64(pages) * int64(s.o.PageBytes))
}

// admit finds out whether bytes of pages can be queued.
func (s *Store) admit(bytes int64) bool {
	if s.closed || bytes > s.o.MaxBytes || s.count.Queued+bytes > s.o.MaxQueued {
		s.count.Dropped++
		return false
	}
	return true
}

// Put queues an image, which the caller must not change any more, to be written.
// It never waits: an image for which there is no room in the queue, or that is
// larger than the whole store, is dropped and counted, and so is one whose parts
// do not fit together. It reports whether the prefix is kept, or will be if the
// disk allows. One that is kept already is marked as just used.
func (s *Store) Put(key kv.Key, m *Image) bool {
	if err := m.check(s.o.PageBytes); err != nil {
		s.o.Logger.Warn("a prefix cannot be kept", "error", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.count.Dropped++
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.has(key) {
		s.touch(key)
		return true
	}
	if !s.admit(int64(len(m.Pages))) {
		return false
	}
	s.count.Queued += int64(len(m.Pages))
	s.waiting[key] = m
	s.queue = append(s.queue, job{key: key, image: m})
	s.wake.Signal()
	return true
}

// Remove forgets a prefix, if it is kept; its file is deleted soon. It does
// nothing once the store is closed.
func (s *Store) Remove(key kv.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	delete(s.waiting, key)
	if e := s.index[key]; e != nil {
		s.drop(e)
		s.doom(key)
	}
}

// drop takes a file from the index.
func (s *Store) drop(e *list.Element) {
	x := s.used.Remove(e).(*entry)
	delete(s.index, x.key)
	s.count.Bytes -= x.size
}

// doom has the writer delete a file that is not in the index any more.
func (s *Store) doom(key kv.Key) {
	s.doomed = append(s.doomed, key)
	s.wake.Signal()
}

// add enters a file as the latest used.
func (s *Store) add(key kv.Key, size int64) {
	s.index[key] = s.used.PushFront(&entry{key, size})
	s.count.Bytes += size
}

// evict drops the files that were not used for longest until there is room for
// size more bytes.
func (s *Store) evict(size int64) {
	for s.used.Len() > 0 && s.count.Bytes+size > s.o.MaxBytes {
		e := s.used.Back()
		s.count.Evicted++
		s.doomed = append(s.doomed, e.Value.(*entry).key)
		s.drop(e)
	}
}

// touch marks a file as just used.
func (s *Store) touch(key kv.Key) {
	if e := s.index[key]; e != nil && !s.closed {
		s.used.MoveToFront(e)
		s.touched[key] = s.stamp()
		s.wake.Signal()
	}
}

// stamp returns the time of a use: now, but later than any before, so that files
// keep their order however coarse the clock.
func (s *Store) stamp() time.Time {
	s.clock = s.clock.Add(time.Microsecond)
	if now := time.Now(); now.After(s.clock) {
		s.clock = now
	}
	return s.clock
}

// Flush waits until all that was Put and Removed before is on the disk or has
// failed. It returns early, with an error, when ctx is done or the store closed.
func (s *Store) Flush(ctx context.Context) error {
	flushed := make(chan error, 1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("spill: %w", ErrClosed)
	}
	s.queue = append(s.queue, job{flushed: flushed})
	s.wake.Signal()
	s.mu.Unlock()
	select {
	case err := <-flushed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close drops what is still queued, waits for the file that is being written, and
// gives the directory free. Further calls do nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.wake.Signal()
	s.mu.Unlock()
	<-s.done
	if !first {
		return nil
	}
	return s.lock.Close()
}

func (s *Store) path(key kv.Key) string { return filepath.Join(s.dir, fileName(key)) }
