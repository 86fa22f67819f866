package kv

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/moaserve/moaserve/runtime/plan"
)

func TestReclaimEvictsWhatWasNotUsedForLongest(t *testing.T) {
	pool := NewPool(30)
	index := NewPrefixes(pool)
	keys := []Key{{1}, {2}, {3}}
	for _, key := range keys {
		s := NewSequence(pool, snapshotLayout())
		compute(t, s, plan.BlockSize)
		index.Add(key, s.Snapshot()) // 3 pages: a block in each head
		s.Release()
	}
	if index.Longest(keys[:1]) == nil {
		t.Fatal("the first prefix is not found")
	}
	index.Reclaim(24) // of 30, 21 are free
	if !index.Has(keys[0]) || index.Has(keys[1]) || !index.Has(keys[2]) {
		t.Errorf("kept: %v %v %v; the second was not used for longest", index.Has(keys[0]), index.Has(keys[1]), index.Has(keys[2]))
	}
	index.Reclaim(31) // more than there is: everything goes, nothing fails
	if index.Len() != 0 || pool.Free() != 30 || index.Stats().Evictions != 3 {
		t.Errorf("%d prefixes, %d free pages, %d evictions", index.Len(), pool.Free(), index.Stats().Evictions)
	}
}

// TestIndexGivesUpWhatAModelSays holds the index against a list that says in which
// order prefixes are to go.
func TestIndexGivesUpWhatAModelSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := NewPool(60)
		index := NewPrefixes(pool)
		type entry struct {
			pins    int
			lasting bool
		}
		model := map[Key]entry{}
		var order []Key // the latest used first
		use := func(key Key) {
			order = slices.Insert(slices.DeleteFunc(order, func(k Key) bool { return k == key }), 0, key)
		}
		next := func() Key { // the one to go first
			for _, pinned := range []bool{false, true} {
				for _, key := range slices.Backward(order) {
					if (model[key].pins > 0) == pinned {
						return key
					}
				}
			}
			t.Fatal("nothing is left")
			return Key{}
		}
		forget := func(key Key) {
			delete(model, key)
			order = slices.DeleteFunc(order, func(k Key) bool { return k == key })
		}
		index.Evicted = func(x Kept) {
			if want := next(); x.Key != want {
				t.Fatalf("%v is given up before %v", x.Key[0], want[0])
			}
			if e := model[x.Key]; x.Pinned != (e.pins > 0) || x.Lasting != e.lasting || x.Snapshot.Pages() != 3 {
				t.Fatalf("given up as %+v, want %+v", x, e)
			}
			forget(x.Key)
		}
		key := rapid.Custom(func(t *rapid.T) Key { return Key{rapid.Byte().Draw(t, "key") % 12} })
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k := key.Draw(t, "k")
				s := NewSequence(pool, snapshotLayout())
				index.Reclaim(3)
				if _, err := s.Extend(plan.BlockSize, nil); err != nil {
					t.Fatal(err)
				}
				s.Advance()
				index.Add(k, s.Snapshot())
				s.Release()
				if _, ok := model[k]; !ok {
					model[k] = entry{}
				}
				use(k)
			},
			"find": func(t *rapid.T) {
				k := key.Draw(t, "k")
				e, ok := model[k]
				if found := index.Longest([]Key{{99}, k, {98}}); (found != nil) != ok {
					t.Fatalf("%v: found %v, want %v", k[0], found, ok)
				}
				if ok {
					e.lasting = true
					model[k] = e
					use(k)
				}
			},
			"last": func(t *rapid.T) {
				k := key.Draw(t, "k")
				index.Last(k)
				if e, ok := model[k]; ok {
					e.lasting = true
					model[k] = e
				}
			},
			"pin": func(t *rapid.T) {
				k := key.Draw(t, "k")
				e, ok := model[k]
				if n := index.Pin(k); (n != nil) != ok {
					t.Fatalf("%v: pinned %v, want %v", k[0], n, ok)
				}
				if ok {
					if e.pins++; e.pins == 1 {
						use(k)
					}
					model[k] = e
				}
			},
			"unpin": func(t *rapid.T) {
				k := key.Draw(t, "k")
				index.Unpin(k)
				if e := model[k]; e.pins > 0 {
					if e.pins--; e.pins == 0 {
						use(k)
					}
					model[k] = e
				}
			},
			"remove": func(t *rapid.T) {
				k := key.Draw(t, "k")
				index.Remove(k)
				forget(k)
			},
			"reclaim": func(t *rapid.T) { index.Reclaim(rapid.IntRange(0, 60).Draw(t, "pages")) },
			"": func(t *rapid.T) {
				kept := map[Key]entry{}
				pinned := 0
				index.All(func(x Kept) bool {
					kept[x.Key] = entry{model[x.Key].pins, x.Lasting}
					if x.Pinned {
						pinned++
					}
					return true
				})
				if !maps.Equal(kept, model) || index.Len() != len(model) || index.Pinned() != pinned {
					t.Fatalf("kept %v, want %v", kept, model)
				}
				if pool.Cached() != 3*len(model) || pool.Used() != 0 || pool.Free() != 60-3*len(model) {
					t.Fatalf("%d pages are cached and %d free with %d prefixes", pool.Cached(), pool.Free(), len(model))
				}
			},
		})
		index.Clear()
		if pool.Free() != 60 || index.Len() != 0 || index.Pinned() != 0 {
			t.Fatalf("in the end %d pages are free", pool.Free())
		}
	})
}
