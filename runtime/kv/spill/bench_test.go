package spill

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/plan"
)

// large is 80 MB: 5000 tokens of a model with 64 KV heads in pages of 16 kB, seen
// by every head.
func large() (Options, *Image) {
	o := options()
	o.PageBytes, o.MaxBytes = 16<<10, 1<<30
	const blocks, heads = 80, 64
	m := &Image{Tokens: blocks * plan.BlockSize, Starts: make([]int, heads), Pages: make([]byte, blocks*heads*o.PageBytes)}
	rng := rand.NewChaCha8([32]byte{})
	_, _ = rng.Read(m.Pages) // never fails
	return o, m
}

// BenchmarkLoad reads a file that the operating system still has in memory.
func BenchmarkLoad(b *testing.B) {
	o, m := large()
	s := open(b, b.TempDir(), o)
	put(b, s, key(1), m)
	b.SetBytes(int64(len(m.Pages)))
	for b.Loop() {
		if _, err := s.Load(key(1)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadFile is what Load is measured against: no header, no checksum.
func BenchmarkReadFile(b *testing.B) {
	o, m := large()
	s := open(b, b.TempDir(), o)
	put(b, s, key(1), m)
	b.SetBytes(int64(len(m.Pages)))
	for b.Loop() {
		if _, err := os.ReadFile(s.path(key(1))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut includes the wait for the disk.
func BenchmarkPut(b *testing.B) {
	o, m := large()
	s := open(b, b.TempDir(), o)
	b.SetBytes(int64(len(m.Pages)))
	for b.Loop() {
		s.Remove(key(1))
		put(b, s, key(1), m)
	}
}

func BenchmarkOpen(b *testing.B) {
	const files = 5000
	dir, o := filepath.Join(b.TempDir(), "store"), options()
	m := image(1, 0)
	h := header{tokens: m.Tokens, starts: make([]int, 256), pageBytes: o.PageBytes, format: o.Format, model: o.Model}
	n, err := pages(h.tokens, h.starts)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	o.MaxBytes = 1 << 30
	for i := range files {
		h.key = kv.Key{byte(i), byte(i >> 8)}
		if err := os.WriteFile(filepath.Join(dir, fileName(h.key)), append(h.append(nil), make([]byte, n*o.PageBytes)...), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		s, err := Open(dir, o)
		if err != nil {
			b.Fatal(err)
		}
		if n := s.Stats(); n.Files != files {
			b.Fatalf("%+v", n)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
