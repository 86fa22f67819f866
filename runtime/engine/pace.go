package engine

import (
	"math/bits"
	"time"
)

// pace decides how many prompt tokens go into a step in which other sequences
// decode. A fixed number would be wrong everywhere: 256 prompt tokens are a
// hiccup of milliseconds on a GPU and half a second of silence on a CPU.
//
// It measures instead: how long a step takes that only decodes, and by how much a
// prompt token prolongs it. A mixed step then gets as many tokens as make it stretch
// times as long.
type pace struct {
	stretch float64
	most    int
	classes [maxPaceClass]paceClass // by the magnitude of the number of decodes
}

// paceClass holds what was learnt about steps with about the same number of
// decoding sequences.
type paceClass struct {
	alone float64 // seconds of the slower steps that only decode; 0 when unknown
	token float64 // seconds by which a prompt token prolongs it; 0 when unknown
	asked int     // budget of the mixed step under way
	chunk int     // prompt tokens of the latest mixed step
	mixed int     // mixed steps since the latest that only decoded
}

const (
	// maxPaceClass covers 2^15 decoding sequences.
	maxPaceClass = 16
	// paceRows is what the rows of a mixed step are a multiple of: the matrix
	// products of the CPU take rows in fours and twos, and a single one is dear.
	paceRows = 2
	// firstChunk is tried when nothing is known: little enough for any device.
	firstChunk = 7
	// paceRefresh is how many mixed steps may follow one another. Then one step
	// only decodes, because the sequences have grown and the machine may be busier:
	// it costs a prefill less than a hundredth of its time.
	paceRefresh = 64
	// paceWeight is the weight of a new measurement. What a token costs rises
	// faster than it falls: too long a step is worse than too short a one.
	paceWeight, paceWeightUp = 1. / 8, 1. / 2
	// What a reader is used to are the slower steps, not the mean: with these
	// weights about four in five are faster.
	aloneWeight, aloneWeightUp = 1. / 16, 1. / 4
)

func newPace(o Options) *pace { return &pace{stretch: o.DecodeStretch, most: o.PrefillChunkWithDecode} }

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
	if c.token == 0 {
		c.asked = min(firstChunk, p.most)
		return c.asked
	}
	room := (p.stretch - 1) * c.alone
	tokens := min(int(min(room/c.token, float64(p.most))), max(2*c.chunk, firstChunk))
	if tokens >= p.most {
		c.asked = p.most
		return p.most
	}
	rows := (decodes + tokens) / paceRows * paceRows
	if rows <= decodes {
		rows += paceRows
	}
	c.asked = min(rows-decodes, p.most)
	return c.asked
}

// observe learns from a step that took a while.
func (p *pace) observe(decodes, prefill int, took time.Duration) {
	if decodes == 0 {
		return
	}
	c, t := p.class(decodes), max(took.Seconds(), 1e-9) // 0 means unknown
	if prefill == 0 {
		c.mixed = 0
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
	c.chunk = prefill
	// A token costs something, even where it does not show beside the weights.
	token := max((t-c.alone)/float64(prefill), c.alone/float64(100*p.most))
	switch {
	case c.token == 0:
		c.token = token
	case token > c.token:
		c.token += paceWeightUp * (min(token, 2*c.token) - c.token)
	default:
		c.token += paceWeight * (token - c.token)
	}
}
