// Package plan holds the one definition of a MoA plan: which blocks of the
// context each KV head sees. Prefill, decode, every backend, the profiler and
// the float64 reference take their masks from here and nowhere else.
//
// The package depends on nothing else in the module.
package plan

import "math"

// BlockSize is the number of tokens in a block. It is the granularity of every
// span, the number of tokens in a KV page, and the tile of the sparse prefill.
const BlockSize = 64

// Blocks returns how many blocks so many tokens fill, the last one perhaps in part.
func Blocks(tokens int) int { return (tokens + BlockSize - 1) / BlockSize }

// DefaultFloor is the length, in tokens, below which the span of
// [SpanPosition] stops shrinking. Plans are profiled from 2048 tokens up, and
// shorter spans than those of that length lose retrieval.
const DefaultFloor = 2048

// Rule is the linear span rule of one KV head (MoA, section 3.2):
// alpha + beta*N tokens of a context of N tokens.
type Rule struct {
	// Alpha is the constant part of the span, in tokens. It may be negative.
	Alpha int `json:"alpha"`
	// Beta is the share of the length, 0 <= Beta <= 1.
	Beta float64 `json:"beta"`
}

// Dense is the rule that sees everything at every length.
var Dense = Rule{Alpha: 0, Beta: 1}

// IsDense says whether the rule sees everything at every length, as [Dense]
// does.
func (r Rule) IsDense() bool { return r.Beta == 1 && r.Alpha >= 0 }

// positionBlocks returns b(q) of span: position, the number of blocks up to and
// including its own that a query in block q sees, sink block aside:
//
//	clamp(floor(alpha/64 + beta*max(q+1, floor/64)), 1, q+1)
//
// The product is rounded before it is added: without the conversion a compiler
// may fuse the two, and the same plan would differ between architectures.
func (r Rule) positionBlocks(q, floorBlocks int) int {
	share := float64(r.Beta * float64(max(q+1, floorBlocks)))
	return clampBlocks(math.Floor(float64(r.Alpha)/BlockSize+share), q)
}

// lengthBlocks returns b of span: length for a total of totalBlocks blocks,
//
//	max(1, floor(alpha/64) + floor(beta*T/64))
//
// cut to the q+1 blocks that exist at block q (MoA's rule, which floors alpha
// and beta*T apart).
func (r Rule) lengthBlocks(q, totalBlocks int) int {
	share := math.Floor(r.Beta * float64(totalBlocks))
	return clampBlocks(math.Floor(float64(r.Alpha)/BlockSize)+share, q)
}

// clampBlocks returns b as a number of blocks between 1 and q+1. What is not a
// number, which only a rule outside the format can give, is 1.
func clampBlocks(b float64, q int) int {
	switch {
	case b >= float64(q+1):
		return q + 1
	case b >= 1:
		return int(b)
	}
	return 1
}
