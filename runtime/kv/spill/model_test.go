package spill

import (
	"errors"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/moaserve/moaserve/runtime/kv"
)

// model is what a store must look like from outside: a list of images, the latest
// used first, of bounded size.
type model struct {
	o     Options
	keys  []kv.Key
	kept  map[kv.Key]*Image
	sizes map[kv.Key]int64
}

func (m *model) bytes() (total int64) {
	for _, k := range m.keys {
		total += m.sizes[k]
	}
	return total
}

func (m *model) use(k kv.Key) {
	m.remove(k)
	m.keys = slices.Insert(m.keys, 0, k)
}

func (m *model) remove(k kv.Key) {
	m.keys = slices.DeleteFunc(m.keys, func(x kv.Key) bool { return x == k })
}

func (m *model) has(k kv.Key) bool { return slices.Contains(m.keys, k) }

func (m *model) put(k kv.Key, image *Image, size int64) {
	if m.has(k) {
		m.use(k)
		return
	}
	if size > m.o.MaxBytes {
		return
	}
	m.evict(size)
	m.use(k)
	m.kept[k], m.sizes[k] = image, size
}

func (m *model) evict(size int64) {
	for m.bytes()+size > m.o.MaxBytes {
		m.keys = m.keys[:len(m.keys)-1]
	}
}

func TestStoreBehavesLikeItsModel(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "store")
		if err != nil {
			t.Fatal(err)
		}
		m := &model{o: options(), kept: map[kv.Key]*Image{}, sizes: map[kv.Key]int64{}}
		m.o.MaxBytes = rapid.Int64Range(150, 3000).Draw(t, "max bytes")
		var s *Store
		reopen := func(t *rapid.T) {
			if s, err = Open(dir, m.o); err != nil {
				t.Fatal(err)
			}
		}
		reopen(t)
		defer func() { _ = s.Close() }()
		draw := func(t *rapid.T) kv.Key { return key(rapid.ByteMax(5).Draw(t, "key")) }
		flush := func(t *rapid.T) {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, blocks := draw(t), rapid.IntRange(1, 30).Draw(t, "blocks")
				x := image(blocks, byte(blocks)^k[0])
				size := int64((&header{starts: x.Starts, format: m.o.Format, model: m.o.Model}).size() + len(x.Pages))
				s.Put(k, x)
				flush(t)
				m.put(k, x, size)
			},
			"admit": func(t *rapid.T) {
				k := draw(t)
				if s.Admit(k, 1) == m.has(k) {
					t.Fatalf("Admit(%x) although kept is %v", k[:1], m.has(k))
				}
				if m.has(k) {
					m.use(k)
				}
			},
			"load": func(t *rapid.T) {
				k := draw(t)
				x, err := s.Load(k)
				if !m.has(k) {
					if !errors.Is(err, ErrNotFound) {
						t.Fatalf("Load(%x): %v", k[:1], err)
					}
					return
				}
				want := m.kept[k]
				if err != nil || x.Tokens != want.Tokens || !slices.Equal(x.Starts, want.Starts) || !slices.Equal(x.Pages, want.Pages) {
					t.Fatalf("Load(%x): another image, %v", k[:1], err)
				}
				m.use(k)
			},
			"damage": func(t *rapid.T) {
				k := draw(t)
				if !m.has(k) {
					return
				}
				if err := os.Truncate(s.path(k), rapid.Int64Range(0, m.sizes[k]-1).Draw(t, "length")); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Load(k); !errors.Is(err, ErrDamaged) {
					t.Fatalf("Load(%x) of a cut file: %v", k[:1], err)
				}
				m.remove(k)
			},
			"remove": func(t *rapid.T) {
				k := draw(t)
				s.Remove(k)
				m.remove(k)
			},
			"reopen": func(t *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				m.o.MaxBytes = max(150, m.o.MaxBytes+rapid.Int64Range(-300, 300).Draw(t, "more bytes"))
				m.evict(0)
				reopen(t)
			},
			"": func(t *rapid.T) {
				if got := s.Keys(); !slices.Equal(got, m.keys) {
					t.Fatalf("kept are %x, want %x", got, m.keys)
				}
				flush(t)
				left := names(t, dir)
				if n := s.Stats(); n.Bytes != m.bytes() || n.Queued != 0 || n.Files != len(left) || n.Files != len(m.keys) {
					t.Fatalf("%+v, files %q, want %d bytes of %d files", n, left, m.bytes(), len(m.keys))
				}
			},
		})
	})
}
