package kv

import "container/list"

// Key names a prefix: a hash of everything that its keys and values depend on.
type Key [32]byte

// Prefixes is the index of the snapshots that are kept. It holds pages that
// nothing else needs until the pool runs short; then the prefixes that were not
// used for longest go first, those that are pinned after all others.
type Prefixes struct {
	// Evicted, when not nil, is told about a prefix that is about to go because
	// pages are short. It must not change the index.
	Evicted func(Kept)

	pool  *Pool
	byKey map[Key]*prefix
	// The latest used first. Both hold *prefix.
	loose, pinned list.List
	count         PrefixStats
}

// PrefixStats counts what became of prefixes, from the start.
type PrefixStats struct {
	Hits, Misses uint64 // sequences that began with a cached prefix, or without
	Evictions    uint64
}

// Kept is a prefix of the index.
type Kept struct {
	Key      Key
	Snapshot *Snapshot
	Pinned   bool
	// Lasting prefixes have been continued, or were marked by Last: they are worth
	// more than a moment.
	Lasting bool
}

type prefix struct {
	key      Key
	snapshot *Snapshot
	pins     int
	lasting  bool
	element  *list.Element // of loose or, with pins, of pinned
}

// NewPrefixes returns an empty index over a pool.
func NewPrefixes(pool *Pool) *Prefixes {
	return &Prefixes{pool: pool, byKey: make(map[Key]*prefix)}
}

// Len returns the number of prefixes.
func (p *Prefixes) Len() int { return len(p.byKey) }

// Pinned returns the number of prefixes that are pinned.
func (p *Prefixes) Pinned() int { return p.pinned.Len() }

// Stats returns the counters.
func (p *Prefixes) Stats() PrefixStats { return p.count }

// Has reports whether a prefix is kept, without using it.
func (p *Prefixes) Has(key Key) bool { return p.byKey[key] != nil }

// Longest returns the longest kept prefix among keys, which name ever longer
// prefixes of one text; nil when there is none.
func (p *Prefixes) Longest(keys []Key) *Snapshot {
	for i := len(keys) - 1; i >= 0; i-- {
		if x := p.byKey[keys[i]]; x != nil {
			p.list(x).MoveToFront(x.element)
			x.lasting = true
			p.count.Hits++
			return x.snapshot
		}
	}
	p.count.Misses++
	return nil
}

// Add keeps a snapshot, which belongs to the index from now on. One that is kept
// under the same key already is replaced; its pins remain.
func (p *Prefixes) Add(key Key, n *Snapshot) {
	if x := p.byKey[key]; x != nil {
		x.snapshot.Release()
		x.snapshot = n
		p.list(x).MoveToFront(x.element)
		return
	}
	x := &prefix{key: key, snapshot: n}
	x.element = p.loose.PushFront(x)
	p.byKey[key] = x
}

// Last marks a prefix as lasting, if it is kept.
func (p *Prefixes) Last(key Key) {
	if x := p.byKey[key]; x != nil {
		x.lasting = true
	}
}

// Pin makes a prefix one of the last to be evicted until Unpin was called as often
// as Pin. It returns the prefix, nil when it is not kept.
func (p *Prefixes) Pin(key Key) *Snapshot {
	x := p.byKey[key]
	if x == nil {
		return nil
	}
	if x.pins++; x.pins == 1 {
		p.loose.Remove(x.element)
		x.element = p.pinned.PushFront(x)
	}
	return x.snapshot
}

// Unpin takes back one Pin and returns how many are left. A prefix that was evicted
// meanwhile has none.
func (p *Prefixes) Unpin(key Key) int {
	x := p.byKey[key]
	if x == nil || x.pins == 0 {
		return 0
	}
	if x.pins--; x.pins == 0 {
		p.pinned.Remove(x.element)
		x.element = p.loose.PushFront(x)
	}
	return x.pins
}

// Remove forgets a prefix, if it is kept.
func (p *Prefixes) Remove(key Key) {
	if x := p.byKey[key]; x != nil {
		p.drop(x)
	}
}

// Reclaim evicts prefixes until the pool has that many free pages or nothing is
// left to evict.
func (p *Prefixes) Reclaim(pages int) {
	for p.pool.Free() < pages && len(p.byKey) > 0 {
		last := p.loose.Back()
		if last == nil {
			last = p.pinned.Back()
		}
		x := last.Value.(*prefix)
		p.count.Evictions++
		if p.Evicted != nil {
			p.Evicted(x.kept())
		}
		p.drop(x)
	}
}

// All calls f for each prefix, the pinned ones first, then in the order of their
// latest use, until f returns false.
func (p *Prefixes) All(f func(Kept) bool) {
	for _, l := range []*list.List{&p.pinned, &p.loose} {
		for e := l.Front(); e != nil; e = e.Next() {
			if x := e.Value.(*prefix); !f(x.kept()) {
				return
			}
		}
	}
}

// Clear forgets all prefixes.
func (p *Prefixes) Clear() {
	for _, x := range p.byKey {
		p.drop(x)
	}
}

func (x *prefix) kept() Kept { return Kept{x.key, x.snapshot, x.pins > 0, x.lasting} }

// list returns the list that x is in.
func (p *Prefixes) list(x *prefix) *list.List {
	if x.pins > 0 {
		return &p.pinned
	}
	return &p.loose
}

func (p *Prefixes) drop(x *prefix) {
	p.list(x).Remove(x.element)
	delete(p.byKey, x.key)
	x.snapshot.Release()
}
