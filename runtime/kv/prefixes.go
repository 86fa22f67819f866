package kv

import "container/list"

// Key names a prefix: a hash of everything that its keys and values depend on.
type Key [32]byte

// Prefixes is the index of the snapshots that are kept. It holds pages that
// nothing else needs until the pool runs short; then the prefixes that were not
// used for longest go first.
type Prefixes struct {
	pool  *Pool
	byKey map[Key]*list.Element
	used  list.List // of *prefix, the latest used first
	count PrefixStats
}

// PrefixStats counts what became of prefixes, from the start.
type PrefixStats struct {
	Hits, Misses uint64 // sequences that began with a cached prefix, or without
	Evictions    uint64
}

type prefix struct {
	key      Key
	snapshot *Snapshot
}

// NewPrefixes returns an empty index over a pool.
func NewPrefixes(pool *Pool) *Prefixes {
	return &Prefixes{pool: pool, byKey: make(map[Key]*list.Element)}
}

// Len returns the number of prefixes.
func (p *Prefixes) Len() int { return len(p.byKey) }

// Stats returns the counters.
func (p *Prefixes) Stats() PrefixStats { return p.count }

// Has reports whether a prefix is kept, without using it.
func (p *Prefixes) Has(key Key) bool { return p.byKey[key] != nil }

// Longest returns the longest kept prefix among keys, which name ever longer
// prefixes of one text; nil when there is none.
func (p *Prefixes) Longest(keys []Key) *Snapshot {
	for i := len(keys) - 1; i >= 0; i-- {
		if e := p.byKey[keys[i]]; e != nil {
			p.used.MoveToFront(e)
			p.count.Hits++
			return e.Value.(*prefix).snapshot
		}
	}
	p.count.Misses++
	return nil
}

// Add keeps a snapshot, which belongs to the index from now on. One that is kept
// under the same key already is replaced.
func (p *Prefixes) Add(key Key, n *Snapshot) {
	if e := p.byKey[key]; e != nil {
		p.drop(e)
	}
	p.byKey[key] = p.used.PushFront(&prefix{key, n})
}

// Remove forgets a prefix, if it is kept.
func (p *Prefixes) Remove(key Key) {
	if e := p.byKey[key]; e != nil {
		p.drop(e)
	}
}

// Reclaim evicts prefixes until the pool has that many free pages or nothing is
// left to evict.
func (p *Prefixes) Reclaim(pages int) {
	for p.pool.Free() < pages && p.used.Len() > 0 {
		p.count.Evictions++
		p.drop(p.used.Back())
	}
}

// Clear forgets all prefixes.
func (p *Prefixes) Clear() {
	for p.used.Len() > 0 {
		p.drop(p.used.Back())
	}
}

func (p *Prefixes) drop(e *list.Element) {
	x := p.used.Remove(e).(*prefix)
	delete(p.byKey, x.key)
	x.snapshot.Release()
}
