package spill

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pageBytes keeps the tests' files small.
const pageBytes = 16

func options() Options {
	return Options{MaxBytes: 1 << 20, Format: "cpu/f16", Model: "0123abcd", PageBytes: pageBytes}
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func key(n byte) kv.Key { return kv.Key{n, 31: 0xff} }

// image returns an image of that many blocks of three heads: one that holds all,
// one that holds the last block and the sink, one that holds the sink alone.
func image(blocks int, seed byte) *Image {
	starts := []int{0, blocks - 1, blocks}
	n, err := pages(blocks*plan.BlockSize, starts)
	if err != nil {
		panic(err)
	}
	m := &Image{Tokens: blocks * plan.BlockSize, Starts: starts, Pages: make([]byte, n*pageBytes)}
	for i := range m.Pages {
		m.Pages[i] = seed + byte(i*7)
	}
	return m
}

// put keeps an image and waits for the file.
func put(t testing.TB, s *Store, k kv.Key, m *Image) {
	t.Helper()
	if !s.Put(k, m) {
		t.Fatalf("the image of key %x was dropped: %+v", k[:1], s.Stats())
	}
	flush(t, s)
}

func flush(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Flush(context.Background()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

func wantImage(t testing.TB, s *Store, k kv.Key, want *Image) {
	t.Helper()
	got, err := s.Load(k)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("another image came back (-want +got):\n%s", diff)
	}
}

// names lists the directory without the lock file.
func names(t interface {
	Helper()
	Fatal(...any)
}, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, d := range list {
		if d.Name() != lockName {
			all = append(all, d.Name())
		}
	}
	return all
}

// logs is a logger that collects what is logged.
func logs() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

func TestImagesOutliveTheStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	s := open(t, dir, options())
	want := map[kv.Key]*Image{key(1): image(1, 10), key(2): image(2, 20), key(3): image(5, 30)}
	for k, m := range want {
		put(t, s, k, m)
	}
	for k, m := range want {
		wantImage(t, s, k, m)
	}
	before := s.Stats()
	if before.Files != 3 || before.Written != 3 || before.Loaded != 3 || before.Queued != 0 {
		t.Errorf("stats: %+v", before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir, options())
	if n := s.Stats(); n != (Stats{Files: 3, Bytes: before.Bytes}) {
		t.Errorf("stats after opening again: %+v", n)
	}
	for k, m := range want {
		if !s.Has(k) {
			t.Errorf("key %x is lost", k[:1])
		}
		wantImage(t, s, k, m)
	}
}

func TestAbsentPrefixesAreNotFound(t *testing.T) {
	s := open(t, t.TempDir(), options())
	if _, err := s.Load(key(1)); !errors.Is(err, ErrNotFound) || s.Has(key(1)) {
		t.Errorf("Load of an empty store: %v", err)
	}
	s.Remove(key(1))
	put(t, s, key(1), image(1, 0))
	if err := os.Remove(s.path(key(1))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(key(1)); !errors.Is(err, ErrNotFound) || s.Has(key(1)) {
		t.Errorf("Load of a file that somebody deleted: %v", err)
	}
	if n := s.Stats(); n.Files != 0 || n.Bytes != 0 || n.Damaged != 0 {
		t.Errorf("stats: %+v", n)
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, options())
	put(t, s, key(1), image(1, 0))
	for path, want := range map[string]fs.FileMode{dir: 0o700, s.path(key(1)): 0o600, filepath.Join(dir, lockName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestOpenWarnsOfADirectoryThatOthersMayRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	o := options()
	var out *bytes.Buffer
	o.Logger, out = logs()
	open(t, dir, o)
	if !strings.Contains(out.String(), "others may look into") {
		t.Errorf("logged: %s", out)
	}
}

func TestOnlyOneStoreOpensADirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, options())
	if _, err := Open(dir, options()); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the second Open: %v", err)
	}
	put(t, s, key(1), image(1, 0))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir, options())
}

func TestUnusableDirectoriesAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{"a file": file, "below a file": filepath.Join(file, "x")}
	if os.Geteuid() != 0 { // to root, nothing is read-only
		locked := t.TempDir()
		if err := os.Chmod(locked, 0o500); err != nil {
			t.Fatal(err)
		}
		cases["read-only"] = locked
	}
	for name, dir := range cases {
		if s, err := Open(dir, options()); err == nil || !strings.Contains(err.Error(), file) && name != "read-only" {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"no bytes":         func(o *Options) { o.MaxBytes = 0 },
		"a negative queue": func(o *Options) { o.MaxQueued = -1 },
		"no page":          func(o *Options) { o.PageBytes = 0 },
		"an endless name":  func(o *Options) { o.Model = strings.Repeat("x", 1<<16) },
	} {
		o := options()
		spoil(&o)
		if s, err := Open(t.TempDir(), o); err == nil {
			t.Errorf("%s: %v", name, s.Close())
		}
	}
}

// sized returns the size of the file of an image.
func sized(t testing.TB, o Options, m *Image) int64 {
	t.Helper()
	size, err := (&header{tokens: m.Tokens, starts: m.Starts, pageBytes: o.PageBytes, format: o.Format, model: o.Model}).fileSize()
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func TestLeastRecentlyUsedFilesMakeRoom(t *testing.T) {
	dir, o := t.TempDir(), options()
	o.MaxBytes = 3 * sized(t, o, image(1, 0))
	s := open(t, dir, o)
	for n := range byte(3) {
		put(t, s, key(n), image(1, n))
	}
	wantImage(t, s, key(0), image(1, 0)) // 1 is the oldest now
	if s.Admit(key(1), 1) {
		t.Error("a kept prefix is to be written again")
	} // and has been used: 2 is the oldest
	put(t, s, key(3), image(1, 3))
	want := []kv.Key{key(3), key(1), key(0)}
	if got := s.Keys(); !slices.Equal(got, want) {
		t.Errorf("kept: %x, want %x", got, want)
	}
	if n := s.Stats(); n.Evicted != 1 || n.Bytes != o.MaxBytes || len(names(t, dir)) != 3 {
		t.Errorf("stats: %+v, files %q", n, names(t, dir))
	}

	// The order survives a restart, and a smaller limit is enforced at once.
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, o)
	if got := s.Keys(); !slices.Equal(got, want) {
		t.Errorf("kept after opening again: %x, want %x", got, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.MaxBytes--
	s = open(t, dir, o)
	if got := s.Keys(); !slices.Equal(got, want[:2]) || len(names(t, dir)) != 2 {
		t.Errorf("kept under a smaller limit: %x, files %q, want %x", got, names(t, dir), want[:2])
	}
}

func TestImagesLargerThanTheStoreAreDropped(t *testing.T) {
	o := options()
	o.MaxBytes = 600
	s := open(t, t.TempDir(), o)
	put(t, s, key(1), image(1, 1))
	for _, m := range []*Image{
		image(100, 0),
		{Tokens: 36 * plan.BlockSize, Starts: []int{0}, Pages: make([]byte, 36*pageBytes)}, // fits but for its header
	} {
		s.Put(key(2), m)
		flush(t, s)
		if s.Has(key(2)) || !s.Has(key(1)) {
			t.Errorf("after an image of %d bytes: kept %x", len(m.Pages), s.Keys())
		}
	}
	if n := s.Stats(); n.Dropped != 2 || n.Evicted != 0 || n.Queued != 0 {
		t.Errorf("stats: %+v", n)
	}
}

func TestMalformedImagesAreDropped(t *testing.T) {
	s := open(t, t.TempDir(), options())
	for name, spoil := range map[string]func(*Image){
		"a page too few":    func(m *Image) { m.Pages = m.Pages[pageBytes:] },
		"a part of a page":  func(m *Image) { m.Pages = m.Pages[1:] },
		"half a block":      func(m *Image) { m.Tokens += plan.BlockSize / 2 },
		"no heads":          func(m *Image) { m.Starts = nil },
		"too many heads":    func(m *Image) { m.Starts = make([]int, maxHeads+1) },
		"a start too late":  func(m *Image) { m.Starts[2]++ },
		"an endless prefix": func(m *Image) { m.Tokens = 1 << 40 },
	} {
		m := image(2, 0)
		spoil(m)
		if s.Put(key(1), m) || s.Has(key(1)) {
			t.Errorf("%s: taken", name)
		}
	}
}

// stalled returns a store whose writer does nothing until the function is called.
func stalled(t *testing.T, o Options) (*Store, func()) {
	t.Helper()
	s := open(t, t.TempDir(), o)
	// A Flush whose answer nobody takes, beside the one that the channel buffers.
	gate := make(chan error)
	s.mu.Lock()
	s.queue = append(s.queue, job{flushed: gate})
	s.wake.Signal()
	s.mu.Unlock()
	// Before the writer has taken it, the writer is not stalled, and a Close would find
	// it in the queue and wait for somebody to take the answer, for ever.
	for waits := true; waits; runtime.Gosched() {
		s.mu.Lock()
		waits = len(s.queue) > 0
		s.mu.Unlock()
	}
	release := sync.OnceFunc(func() { <-gate })
	t.Cleanup(release)
	return s, release
}

func TestPutNeverWaits(t *testing.T) {
	o := options()
	m := image(1, 0)
	o.MaxQueued = int64(2 * len(m.Pages))
	s, release := stalled(t, o)
	for n := range byte(3) {
		if took, want := s.Put(key(n), m), n < 2; took != want {
			t.Errorf("Put %d: %v, want %v", n, took, want)
		}
	}
	if s.Admit(key(3), 1) || s.Admit(key(0), 1) {
		t.Error("a full queue admits more")
	}
	if n := s.Stats(); n.Dropped != 2 || n.Queued != o.MaxQueued || n.Files != 0 {
		t.Errorf("stats: %+v", n)
	}
	// What waits is kept as far as anybody can see.
	if got, err := s.Load(key(1)); !s.Has(key(1)) || err != nil || got != m {
		t.Errorf("Load of a waiting image: %v, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush of a writer that does nothing: %v", err)
	}
	release()
	flush(t, s)
	if !s.Admit(key(3), 1) || !slices.Equal(s.Keys(), []kv.Key{key(1), key(0)}) {
		t.Errorf("kept in the end: %x", s.Keys())
	}
}

func TestRemovedImagesStayAway(t *testing.T) {
	s, release := stalled(t, options())
	s.Put(key(1), image(1, 1))
	s.Put(key(2), image(1, 2))
	s.Remove(key(1))
	s.Remove(key(2))
	s.Put(key(2), image(2, 3)) // the later one counts
	if s.Has(key(1)) || !s.Has(key(2)) {
		t.Errorf("kept: %v %v", s.Has(key(1)), s.Has(key(2)))
	}
	release()
	flush(t, s)
	wantImage(t, s, key(2), image(2, 3))
	s.Remove(key(2))
	flush(t, s)
	if n := s.Stats(); n.Files != 0 || n.Bytes != 0 || n.Queued != 0 || len(names(t, s.dir)) != 0 {
		t.Errorf("stats %+v, files %q", n, names(t, s.dir))
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s, release := stalled(t, options())
	put := s.Put(key(1), image(1, 0))
	flushed := make(chan error)
	go func() { flushed <- s.Flush(context.Background()) }()
	for queued := 0; queued < 2; { // the image and the flush
		s.mu.Lock()
		queued = len(s.queue)
		s.mu.Unlock()
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for done := false; !done; {
		s.mu.Lock()
		done = s.closed
		s.mu.Unlock()
	}
	release()
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-flushed; !errors.Is(err, ErrClosed) {
		t.Errorf("Flush of a store that is closed meanwhile: %v", err)
	}
	if _, err := s.Load(key(1)); !put || !errors.Is(err, ErrClosed) {
		t.Errorf("Load: %v", err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, ErrClosed) || s.Put(key(2), image(1, 0)) || s.Admit(key(2), 1) {
		t.Errorf("Flush: %v", err)
	}
	s.Remove(key(1))
	if n := s.Stats(); n.Files != 0 || n.Queued != 0 || n.Written != 0 {
		t.Errorf("stats: %+v", n)
	}
}

func TestWriteFailuresAreCountedAndReportedOnce(t *testing.T) {
	o := options()
	var out *bytes.Buffer
	o.Logger, out = logs()
	s := open(t, t.TempDir(), o)
	// A directory in the place of the temporary file fails the write, root or not.
	for n := range byte(2) {
		if err := os.MkdirAll(filepath.Join(s.path(key(n))+temporary, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		s.Put(key(n), image(1, n))
	}
	flush(t, s)
	if n := s.Stats(); n.Failed != 2 || n.Files != 0 || n.Bytes != 0 || n.Queued != 0 || s.Has(key(0)) {
		t.Errorf("stats: %+v", n)
	}
	put(t, s, key(2), image(1, 2))
	wantImage(t, s, key(2), image(1, 2))
	flush(t, s)
	if n := strings.Count(out.String(), "cannot be written"); n != 1 || !strings.Contains(out.String(), "can be written again") {
		t.Errorf("%d reports of a failure in:\n%s", n, out)
	}
}

// TestConcurrentUse lets goroutines do everything at once; the race detector and
// the checksums look for mistakes.
func TestConcurrentUse(t *testing.T) {
	o := options()
	o.MaxBytes = 6 * sized(t, o, image(4, 0))
	s := open(t, t.TempDir(), o)
	var wg sync.WaitGroup
	for g := range byte(4) {
		wg.Go(func() {
			for i := range 60 {
				k := byte(i*int(g+3)) % 10
				switch {
				case i%7 == 6:
					s.Remove(key(k))
				case i%2 == 0 && s.Admit(key(k), 6):
					s.Put(key(k), image(4, k))
				default:
					m, err := s.Load(key(k))
					if err == nil && !bytes.Equal(m.Pages, image(4, k).Pages) {
						t.Errorf("key %d has another's pages", k)
					}
					if err != nil && !errors.Is(err, ErrNotFound) {
						t.Errorf("Load: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	flush(t, s)
	n := s.Stats()
	if n.Bytes > o.MaxBytes || n.Queued != 0 || n.Damaged != 0 || len(names(t, s.dir)) != n.Files {
		t.Errorf("stats: %+v, %d files", n, len(names(t, s.dir)))
	}
}

func TestFileNamesAreKeys(t *testing.T) {
	for n := range 256 {
		k := kv.Key{byte(n)}
		binary.LittleEndian.PutUint64(k[24:], uint64(n)*0x9e3779b97f4a7c15)
		if got, ok := keyOf(fileName(k)); !ok || got != k {
			t.Fatalf("%s is key %x, %v", fileName(k), got, ok)
		}
	}
	name := fileName(kv.Key{0xab})
	for _, other := range []string{"", extension, lockName, name[1:], strings.ToUpper(name), name + temporary, "0" + name, strings.Replace(name, "a", "g", 1)} {
		if _, ok := keyOf(other); ok {
			t.Errorf("%q is taken for a key", other)
		}
	}
}
