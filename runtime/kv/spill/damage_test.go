package spill

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// written returns the bytes of a small file of key(1).
func written(t testing.TB) []byte {
	t.Helper()
	s := open(t, t.TempDir(), options())
	put(t, s, key(1), image(1, 9))
	b, err := os.ReadFile(s.path(key(1)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lay makes a directory with the file of key(1).
func lay(t testing.TB, b []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName(key(1))), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// usable reports whether a store that finds the file answers from it. A file that
// it does not answer from must be gone afterwards, and counted.
func usable(t testing.TB, b []byte) (opened, loaded bool) {
	t.Helper()
	s, err := Open(lay(t, b), options())
	if err != nil {
		t.Fatalf("a bad file fails Open: %v", err)
	}
	defer s.Close()
	opened = s.Has(key(1))
	m, err := s.Load(key(1))
	if err == nil {
		if want := image(1, 9); !bytes.Equal(m.Pages, want.Pages) || !slices.Equal(m.Starts, want.Starts) || m.Tokens != want.Tokens {
			t.Fatalf("other pages were loaded: %+v", m)
		}
		return opened, true
	}
	if opened && !errors.Is(err, ErrDamaged) || !opened && !errors.Is(err, ErrNotFound) {
		t.Fatalf("Load: %v", err)
	}
	flush(t, s)
	if left := names(t, s.dir); len(left) != 0 || s.Stats().Bytes != 0 {
		t.Fatalf("the bad file stays: %q, %+v", left, s.Stats())
	}
	return opened, false
}

func TestTornFilesAreFoundByTheirHeaders(t *testing.T) {
	whole := written(t)
	if opened, loaded := usable(t, whole); !opened || !loaded {
		t.Fatal("a whole file is not usable")
	}
	for n := range whole {
		if opened, _ := usable(t, whole[:n]); opened {
			t.Fatalf("a file that was cut to %d of %d bytes is not noticed", n, len(whole))
		}
	}
	if opened, _ := usable(t, append(slices.Clone(whole), 0)); opened {
		t.Error("a file with a byte too many is not noticed")
	}
}

func TestFlippedBitsAreFoundBeforeUse(t *testing.T) {
	whole := written(t)
	size := int(binary.LittleEndian.Uint32(whole[12:]))
	for i := range 8 * len(whole) {
		b := slices.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		opened, loaded := usable(t, b)
		if loaded {
			t.Fatalf("bit %d of byte %d of %d is not noticed", i%8, i/8, len(whole))
		}
		if header := i/8 < size; opened == header {
			t.Fatalf("bit %d of byte %d, in the header: %v; the file was taken into the index: %v", i%8, i/8, header, opened)
		}
	}
}

func TestDamageAfterOpeningIsFoundByLoad(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"cut":      func(path string) error { return os.Truncate(path, 200) },
		"emptied":  func(path string) error { return os.Truncate(path, 0) },
		"zeroed":   func(path string) error { return os.WriteFile(path, make([]byte, 300), 0o600) },
		"replaced": func(path string) error { return os.WriteFile(path, written(t), 0o600) }, // of another key
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			var out *bytes.Buffer
			o.Logger, out = logs()
			s := open(t, filepath.Join(t.TempDir(), "store"), o)
			put(t, s, key(2), image(3, 0))
			path := s.path(key(2))
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(key(2)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Errorf("Load: %v", err)
			}
			if _, err := s.Load(key(2)); !errors.Is(err, ErrNotFound) {
				t.Errorf("the second Load: %v", err)
			}
			put(t, s, key(2), image(3, 0)) // does not fall to the deletion of the bad file
			wantImage(t, s, key(2), image(3, 0))
			if n := s.Stats(); n.Damaged != 1 || n.Files != 1 || strings.Count(out.String(), "damaged file") != 1 {
				t.Errorf("stats %+v, logged:\n%s", n, out)
			}
		})
	}
}

func TestFilesOfOtherModelsAreDropped(t *testing.T) {
	whole := written(t)
	newer := slices.Clone(whole)
	newer[8]++
	size := int(binary.LittleEndian.Uint32(newer[12:]))
	binary.LittleEndian.PutUint32(newer[size-4:], crc32.Checksum(newer[:size-4], castagnoli))
	for name, c := range map[string]struct {
		file  []byte
		spoil func(*Options)
	}{
		"format":  {whole, func(o *Options) { o.Format += "x" }},
		"model":   {whole, func(o *Options) { o.Model = "" }},
		"page":    {whole, func(o *Options) { o.PageBytes *= 2 }},
		"version": {newer, func(*Options) {}},
	} {
		o := options()
		c.spoil(&o)
		var out *bytes.Buffer
		o.Logger, out = logs()
		dir := lay(t, c.file)
		s := open(t, dir, o)
		if s.Has(key(1)) || len(names(t, dir)) != 0 || s.Stats().Damaged != 0 || !strings.Contains(out.String(), "something else") {
			t.Errorf("%s: kept %x, files %q, logged:\n%s", name, s.Keys(), names(t, dir), out)
		}
	}
}

func TestLeftoversOfACrashAreDroppedAndOthersLeft(t *testing.T) {
	dir := lay(t, written(t))
	name := fileName(key(1))
	for _, file := range []string{name + temporary, "notes.txt", "notes.tmp", "x" + extension, fileName(key(2))} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, fileName(key(3))), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name, filepath.Join(dir, fileName(key(4)))); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, options())
	want := []string{name, fileName(key(3)), fileName(key(4)), "notes.tmp", "notes.txt", "x" + extension}
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if n := s.Stats(); n.Files != 1 || n.Damaged != 1 || !s.Has(key(1)) {
		t.Errorf("stats: %+v", n)
	}
}

// seal corrects the header's checksum, so that what it says is looked at.
func seal(b []byte) []byte {
	if len(b) < fixedHeader {
		return b
	}
	if n := binary.LittleEndian.Uint32(b[12:]); n >= fixedHeader+4 && int64(n) <= int64(len(b)) {
		binary.LittleEndian.PutUint32(b[n-4:], crc32.Checksum(b[:n-4], castagnoli))
	}
	return b
}

// A header whose checksum is right may still claim anything.
func TestHostileHeadersAreRefused(t *testing.T) {
	whole := written(t)
	for name, spoil := range map[string]func(b []byte){
		"a header larger than the file": func(b []byte) { binary.LittleEndian.PutUint32(b[12:], uint32(len(b)+1)) },
		"a header of 4 GB":              func(b []byte) { binary.LittleEndian.PutUint32(b[12:], 1<<32-1) },
		"a header without room":         func(b []byte) { binary.LittleEndian.PutUint32(b[12:], fixedHeader) },
		"2^64-1 tokens":                 func(b []byte) { binary.LittleEndian.PutUint64(b[48:], 1<<64-1) },
		"2^31 tokens":                   func(b []byte) { binary.LittleEndian.PutUint64(b[48:], 1<<31) },
		"half a block":                  func(b []byte) { binary.LittleEndian.PutUint64(b[48:], 32) },
		"pages of no bytes":             func(b []byte) { binary.LittleEndian.PutUint32(b[56:], 0) },
		"pages of 4 GB":                 func(b []byte) { binary.LittleEndian.PutUint32(b[56:], 1<<32-1) },
		"4 billion heads":               func(b []byte) { binary.LittleEndian.PutUint32(b[64:], 1<<32-1) },
		"no heads":                      func(b []byte) { binary.LittleEndian.PutUint32(b[64:], 0) },
		"a long format":                 func(b []byte) { binary.LittleEndian.PutUint16(b[68:], 1<<16-1) },
		"a shifted model":               func(b []byte) { b[68]++; b[70]-- },
		"a start beyond the prefix":     func(b []byte) { b[fixedHeader+7+8] = 2 },
	} {
		b := slices.Clone(whole)
		spoil(b)
		if opened, _ := usable(t, seal(b)); opened {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	whole := written(f)
	f.Add(whole, int64(len(whole)))
	f.Add(whole[:fixedHeader], int64(1)<<40)
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		b = seal(slices.Clone(b))
		n, err := headerSize(b, size)
		if err != nil {
			return
		}
		if n > len(b) {
			n = len(b)
		}
		h, err := parseHeader(b[:n], size)
		if err != nil {
			return
		}
		if again := h.append(nil); !bytes.Equal(again, b[:n]) {
			t.Errorf("parsed %+v, which is not what was written", h)
		}
		if want, err := h.fileSize(); err != nil || want != size {
			t.Errorf("a file of %d bytes is taken for one of %d, %v", size, want, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	whole := written(f)
	f.Add(whole)
	f.Add(whole[:100])
	f.Add([]byte(magic))
	path := filepath.Join(f.TempDir(), fileName(key(1)))
	s := &Store{o: options()}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = seal(slices.Clone(b))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := s.read(path, key(1))
		if err != nil {
			return
		}
		if err := m.check(pageBytes); err != nil {
			t.Errorf("a malformed image was loaded: %v", err)
		}
		if !bytes.HasSuffix(b, m.Pages) || len(m.Pages) == 0 {
			t.Errorf("the pages are not the end of the file")
		}
	})
}
