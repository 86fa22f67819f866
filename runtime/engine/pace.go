package engine

import (
	"math/bits"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
)

// pace decides how many prompt tokens go into a step in which other sequences
// decode. A fixed number would be wrong everywhere: 256 prompt tokens are a
// hiccup of milliseconds on a GPU and half a second of silence on a CPU.
//
// It measures instead: how long a step takes that only decodes, and by how much mixed
// ones take longer, which depends on their prompt tokens and on what these see. A mixed
// step then gets as many tokens as make it stretch times as long.
type pace struct {
	stretch float64
	most    int
	rows    int                     // what the rows of a mixed step are a multiple of
	costs   []time.Duration         // of steps of rows, 2*rows, 3*rows, ...; nil when unknown
	classes [maxPaceClass]paceClass // by the magnitude of the number of decodes
}

// paceClass holds what was learnt about steps with about the same number of
// decoding sequences.
type paceClass struct {
	alone  float64 // seconds of the slower steps that only decode; 0 when unknown
	latest float64 // seconds of the latest of them
	extra  costFit // seconds of mixed steps beyond alone, and beyond what costs tell
	mixed  int     // mixed steps since the latest that only decoded
}

const (
	// maxPaceClass covers 2^15 decoding sequences.
	maxPaceClass = 16
	// firstChunk is tried when nothing is known: little enough for any device.
	firstChunk = 7
	// firstShare of the room is what the first step gets where the costs of rows are
	// known, but not those of what is apart from them.
	firstShare = 0.5
	// paceReserve is the share of the room that stays free, for what a step costs is told
	// from those before it. It is paceReserveCool where rows cost what the device said: it
	// had been idle then, and the clock of a GPU that reaches its power limit falls within a
	// prompt. On an H100 a prompt takes 1.28 times as long as alone with 0.08 and the slower
	// gaps are 2.27 times as long, 1.25 and 2.42 with 0.04, 1.26 and 2.46 with 0.01.
	paceReserve, paceReserveCool = 0.03, 0.04
	// paceRefresh is how many mixed steps may follow one another. Then one step
	// only decodes, because the sequences have grown and the machine may be busier:
	// it costs a prefill less than a hundredth of its time.
	paceRefresh = 64
	// What a reader is used to are the slower steps, not the mean: with these
	// weights about four in five are faster.
	aloneWeight, aloneWeightUp = 1. / 16, 1. / 4
)

func newPace(o Options, dev backend.Device) *pace {
	p := &pace{stretch: o.DecodeStretch, most: o.PrefillChunkWithDecode, rows: 1}
	if d, ok := dev.(backend.RowMultiple); ok {
		p.rows = d.RowMultiple()
	}
	if d, ok := dev.(backend.RowCosts); ok {
		p.costs = d.RowCosts()
	}
	return p
}

func (p *pace) class(decodes int) *paceClass {
	return &p.classes[min(bits.Len(uint(decodes)), maxPaceClass-1)]
}

// decodeStep returns how long a step takes at least in which that many sequences decode
// and nothing else happens, 0 when unknown: where other sequences decode than before, one
// step tells.
func (p *pace) decodeStep(decodes int) time.Duration {
	c := p.class(decodes)
	return time.Duration(min(c.alone, c.latest) * float64(time.Second))
}

// budget returns the prompt tokens for a step in which that many sequences, at least
// one, decode; depth tokens come before them in their prompt. It returns 0 when the
// next step should only decode, so that its time is measured.
func (p *pace) budget(decodes, depth int) int {
	c := p.class(decodes)
	if c.alone == 0 || c.mixed >= paceRefresh {
		return 0
	}
	reserve := paceReserve
	if p.costs != nil {
		reserve = paceReserveCool
	}
	room := (1 - reserve) * (p.stretch - 1) * c.alone
	most := p.most
	switch {
	case c.extra.known():
		// Twice as many tokens as were tried are not too far from what is known, nor is a
		// multiple of rows more.
		most = min(most, max(2*c.extra.largest()+p.rows-1, firstChunk))
	case p.costs != nil:
		room *= firstShare
	default:
		most = min(most, firstChunk)
	}
	// The most rows go first, a multiple. If even the fewest take too long, they go all the
	// same: a prompt must advance.
	fewest := p.rows - decodes%p.rows
	for n := p.filled(decodes, most); n > fewest; n -= p.rows {
		if p.expect(c, decodes, n, depth) <= room {
			return n
		}
	}
	return min(fewest, p.most)
}

// filled returns the largest number of prompt tokens up to most that fill rows.
func (p *pace) filled(decodes, most int) int {
	return (decodes+most)/p.rows*p.rows - decodes
}

// expect returns by how many seconds that many prompt tokens prolong a step, though one
// in a few may be slower still.
func (p *pace) expect(c *paceClass, decodes, tokens, depth int) float64 {
	return p.rowCost(decodes, tokens) + c.extra.expect(float64(tokens), prefillWork(depth, tokens))
}

// rowCost returns the seconds that the device says that tokens add to the rows of that
// many decodes.
func (p *pace) rowCost(decodes, tokens int) float64 {
	if p.costs == nil {
		return 0
	}
	of := func(rows int) float64 {
		i := (rows+p.rows-1)/p.rows - 1
		if last := len(p.costs) - 1; i > last { // in proportion
			return p.costs[last].Seconds() * float64(i+1) / float64(last+1)
		}
		return p.costs[i].Seconds()
	}
	return of(decodes+tokens) - of(decodes)
}

// prefillWork is what tokens that follow depth others see, in pairs of tokens, but for
// what a plan hides: that is about the same share for all of them.
func prefillWork(depth, tokens int) float64 {
	return float64(tokens) * (float64(depth) + float64(tokens)/2)
}

// observe learns from a step that took a while, whose prefill tokens did that work in
// all.
func (p *pace) observe(decodes, prefill int, work float64, took time.Duration) {
	if decodes == 0 {
		return
	}
	c, t := p.class(decodes), max(took.Seconds(), 1e-9) // 0 means unknown
	if prefill == 0 {
		c.mixed, c.latest = 0, t
		switch {
		case c.alone == 0:
			c.alone = t
		case t > c.alone: // but not a hiccup
			c.alone += aloneWeightUp * (min(t, 2*c.alone) - c.alone)
		default:
			c.alone += aloneWeight * (t - c.alone)
		}
		return
	}
	c.mixed++
	if c.alone > 0 {
		c.extra.learn(float64(prefill), work, t-c.alone-p.rowCost(decodes, prefill), c.alone)
	}
}
