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
// It measures instead: how long a step takes that only decodes, and how much longer
// mixed ones of few and of many prompt tokens are. A mixed step then gets as many
// tokens as make it stretch times as long.
type pace struct {
	stretch float64
	most    int
	rows    int                     // what the rows of a mixed step are a multiple of
	classes [maxPaceClass]paceClass // by the magnitude of the number of decodes
}

// paceClass holds what was learnt about steps with about the same number of
// decoding sequences.
type paceClass struct {
	alone float64 // seconds of the slower steps that only decode; 0 when unknown
	// The mixed steps of the fewest tokens so far, and the latest ones.
	fewest, latest mixedSteps
	tooMany        int // tokens that were found to be too many lately; 0 for none
	asked          int // budget of the mixed step under way
	mixed          int // mixed steps since the latest that only decoded
}

// mixedSteps are steps with about the same number of prompt tokens.
type mixedSteps struct {
	tokens int     // 0 when there were none
	extra  float64 // seconds beyond those of a step that only decodes
}

const (
	// maxPaceClass covers 2^15 decoding sequences.
	maxPaceClass = 16
	// firstChunk is tried when nothing is known: little enough for any device.
	firstChunk = 7
	// paceRefresh is how many mixed steps may follow one another. Then one step
	// only decodes, because the sequences have grown and the machine may be busier:
	// it costs a prefill less than a hundredth of its time.
	paceRefresh = 64
	// paceWeight is the weight of a new measurement. What mixed steps take rises
	// faster than it falls: too long a step is worse than too short a one.
	paceWeight, paceWeightUp = 1. / 16, 1. / 2
	// What a reader is used to are the slower steps, not the mean: with these
	// weights about four in five are faster.
	aloneWeight, aloneWeightUp = 1. / 16, 1. / 4
	// paceSpread is by how many tokens two sizes of mixed steps must differ to be held
	// against each other.
	paceSpread = 32
	// paceSpare is the share of the room that is worth trying one multiple of rows more
	// for, and paceTrust how far above the room its cost may be when a token is taken to
	// cost what it did on the average: where mixed steps have costs of their own, it will
	// be less.
	paceSpare, paceTrust = 0.1, 1.15
)

// rowMultiple is what a device may implement whose steps cost the same for some numbers
// of rows: what they are best a multiple of.
type rowMultiple interface{ RowMultiple() int }

func newPace(o Options, dev backend.Device) *pace {
	p := &pace{stretch: o.DecodeStretch, most: o.PrefillChunkWithDecode, rows: 1}
	if d, ok := dev.(rowMultiple); ok {
		p.rows = d.RowMultiple()
	}
	return p
}

func (p *pace) class(decodes int) *paceClass {
	return &p.classes[min(bits.Len(uint(decodes)), maxPaceClass-1)]
}

// budget returns the prompt tokens for a step in which that many sequences, at
// least one, decode. It returns 0 when a step without is to be measured.
func (p *pace) budget(decodes int) int {
	c := p.class(decodes)
	if c.alone == 0 || c.mixed >= paceRefresh {
		return 0
	}
	c.asked = p.most
	if tokens := c.fitting(p.room(c), p.most); tokens < p.most {
		c.asked = min(p.wholeRows(c, decodes, tokens), p.most)
	}
	return c.asked
}

// room returns the seconds by which a mixed step is to be longer than one that only
// decodes.
func (p *pace) room(c *paceClass) float64 { return (p.stretch - 1) * c.alone }

// fitting returns how many tokens prolong a step by that much, as far as is known: at
// most twice as many as were tried.
func (c *paceClass) fitting(room float64, most int) int {
	if c.latest.tokens == 0 {
		return firstChunk
	}
	tokens := float64(c.latest.tokens) + (room-c.latest.extra)/c.slope()
	return int(max(1, min(tokens, float64(max(2*c.latest.tokens, firstChunk)), float64(most))))
}

// slope returns the seconds by which one token more prolongs a mixed step. Where a
// mixed step has costs of its own, whatever it carries, two sizes tell them from those
// of a token; sizes close to each other would tell noise, and the steps in which few
// rows cost more rows.
func (c *paceClass) slope() float64 {
	if c.latest.tokens >= c.fewest.tokens+paceSpread && c.latest.extra > c.fewest.extra {
		return (c.latest.extra - c.fewest.extra) / float64(c.latest.tokens-c.fewest.tokens)
	}
	return c.latest.extra / float64(c.latest.tokens)
}

// wholeRows rounds tokens so that the rows of the step are a multiple: down, or up when
// much of the room would stay unused.
func (p *pace) wholeRows(c *paceClass, decodes, tokens int) int {
	rows := max((decodes+tokens)/p.rows, decodes/p.rows+1) * p.rows
	fewer, more := rows-decodes, rows+p.rows-decodes
	room, l := p.room(c), c.latest
	worthIt := fewer <= l.tokens && l.extra < (1-paceSpare)*room && l.extra*float64(more) < paceTrust*room*float64(l.tokens)
	if worthIt && (c.tooMany == 0 || more < c.tooMany) {
		return more
	}
	return fewer
}

// observe learns from a step that took a while.
func (p *pace) observe(decodes, prefill int, took time.Duration) {
	if decodes == 0 {
		return
	}
	c, t := p.class(decodes), max(took.Seconds(), 1e-9) // 0 means unknown
	if prefill == 0 {
		c.mixed, c.tooMany = 0, 0
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
	if c.alone == 0 || 2*prefill < c.asked {
		return // the end of a prompt is little but noise
	}
	// Tokens cost something, even where it does not show beside the weights.
	extra := max(t-c.alone, c.alone*float64(prefill)/float64(100*p.most))
	if c.fewest.tokens == 0 || prefill <= c.fewest.tokens {
		c.fewest.learn(prefill, extra)
	}
	c.latest.learn(prefill, extra)
	if c.latest.extra > p.room(c) && prefill > p.rows {
		c.tooMany = prefill
	}
}

// learn takes a measurement in.
func (m *mixedSteps) learn(tokens int, extra float64) {
	if m.tokens == 0 || tokens > m.tokens+m.tokens/4 || tokens < m.tokens-m.tokens/4 {
		m.tokens, m.extra = tokens, extra // another size
		return
	}
	m.extra *= float64(tokens) / float64(m.tokens)
	m.tokens = tokens
	if extra > m.extra {
		m.extra += paceWeightUp * (min(extra, 2*m.extra) - m.extra)
	} else {
		m.extra += paceWeight * (extra - m.extra)
	}
}
