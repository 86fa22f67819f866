package plan

// Layout is a plan bound to one sequence: the answer, for every head and every
// query block, to "which blocks are visible?". A query in block q of head h
// sees, causally, block 0 (the sink) and blocks Start(h, q) to q.
//
// Heads are numbered layer*KVHeads + kvHead. A Layout is immutable and safe for
// concurrent use.
type Layout struct {
	plan        *Plan
	rules       []Rule
	floorBlocks int // span: position
	totalBlocks int // span: length; 0 under span: position
}

// Plan returns the plan that the layout was bound from.
func (l *Layout) Plan() *Plan { return l.plan }

// FloorBlocks returns the plan's floor in blocks, which span: position looks at.
func (l *Layout) FloorBlocks() int { return l.floorBlocks }

// TotalBlocks returns the length, in blocks, from which span: length takes its
// spans; 0 under span: position.
func (l *Layout) TotalBlocks() int { return l.totalBlocks }

// Heads returns layers * KV heads.
func (l *Layout) Heads() int { return len(l.rules) }

// Blocks returns b(q): how many blocks, its own included, the span of head h
// covers at query block q. 1 <= Blocks <= q+1. The sink is not counted unless
// the span reaches it.
func (l *Layout) Blocks(h, q int) int {
	if l.totalBlocks > 0 {
		return l.rules[h].lengthBlocks(q, l.totalBlocks)
	}
	return l.rules[h].positionBlocks(q, l.floorBlocks)
}

// Start returns the first block of the span of head h at query block q. It
// never decreases with q, so a page before Start (other than the sink) is never
// needed again.
func (l *Layout) Start(h, q int) int { return q - l.Blocks(h, q) + 1 }

// Visible returns how many pages head h needs at query block q: its span, and
// the sink once the span has left block 0.
func (l *Layout) Visible(h, q int) int {
	b := l.Blocks(h, q)
	if b <= q {
		b++
	}
	return b
}

// Pages returns the KV need of a sequence of n tokens: the pages that all heads
// together hold while its last token is computed.
func (l *Layout) Pages(n int) int {
	if n <= 0 {
		return 0
	}
	q := (n - 1) / BlockSize
	total := 0
	for h := range l.rules {
		total += l.Visible(h, q)
	}
	return total
}

// ChunkPages returns the pages that all heads together hold while the tokens
// from (included) to to (excluded) are computed in one step: blocks of the
// chunk stay until its first query has been answered.
func (l *Layout) ChunkPages(from, to int) int {
	if to <= from {
		return l.Pages(from)
	}
	q0, q1 := from/BlockSize, (to-1)/BlockSize
	total := 0
	for h := range l.rules {
		start := l.Start(h, q0)
		total += q1 - start + 1
		if start > 0 {
			total++
		}
	}
	return total
}

// PeakPages returns the most pages that all heads together hold at any moment
// while a sequence grows from from tokens to to tokens in steps of at most chunk
// tokens, wherever the steps begin and end. It is reached by some division into
// steps, so it is what admission must keep free.
//
// A prompt of p tokens computed in chunks and then decoded to n tokens needs
// max(PeakPages(0, p, chunk), PeakPages(p, n, 1)).
func (l *Layout) PeakPages(from, to, chunk int) int {
	if to <= from {
		return l.Pages(from)
	}
	// The first query of a step decides what must stay, the last one what was
	// added. A step of chunk tokens ends at most ahead blocks after the block in
	// which it began, when it began in that block's last token.
	ahead := (max(chunk, 1) + BlockSize - 2) / BlockSize
	// The need of a step from block q0 to block q1 is Visible(q0) + q1 - q0 a
	// head. Visible grows with q0 by 0 or 1 a block, so the latest step that
	// still reaches its full length is the dearest.
	last := (to - 1) / BlockSize
	first := max(last-ahead, from/BlockSize)
	total := 0
	for h := range l.rules {
		total += l.Visible(h, first) + last - first
	}
	return total
}
