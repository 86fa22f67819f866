package engine

import (
	"math"
	"math/bits"
	"time"
)

// pace decides how many prompt tokens go into a step in which other sequences
// decode. A fixed number would be wrong everywhere: 256 prompt tokens are a
// hiccup of milliseconds on a GPU and half a second of silence on a CPU.
//
// It measures instead. A step that only decodes shows how long one takes; the
// prompt tokens of mixed steps are then adjusted until those take stretch times
// as long.
type pace struct {
	stretch float64
	most    int
	classes [maxPaceClass]paceClass // by the magnitude of the number of decodes
}

// paceClass holds what was learnt about steps with about the same number of
// decoding sequences.
type paceClass struct {
	alone float64 // seconds of a step that only decodes; 0 when unknown
	chunk float64 // prompt tokens of a mixed step
	mixed int     // mixed steps since the latest that only decoded
}

const (
	// maxPaceClass covers 2^15 decoding sequences.
	maxPaceClass = 16
	// paceRows is what the rows of a mixed step are a multiple of: the matrix
	// products of the CPU take rows in fours.
	paceRows = 4
	// paceRefresh is how many mixed steps may follow one another. Then one step
	// only decodes, because the sequences have grown and the machine may be busier:
	// it costs a prefill less than a hundredth of its time.
	paceRefresh = 64
	// paceWeight is the weight of a new measurement that is slower than the
	// average. A faster one is believed at once: what slows a step down is mostly
	// somebody else's doing.
	paceWeight = 1. / 8
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
	if c.chunk == 0 {
		c.chunk = 2 * paceRows
	}
	if int(c.chunk) >= p.most {
		return p.most
	}
	rows := (decodes + int(c.chunk)) / paceRows * paceRows
	if rows <= decodes {
		rows += paceRows
	}
	return min(rows-decodes, p.most)
}

// observe learns from a step that took a while.
func (p *pace) observe(decodes, prefill int, took time.Duration) {
	if decodes == 0 {
		return
	}
	c, t := p.class(decodes), max(took.Seconds(), 1e-9) // 0 means unknown
	if prefill == 0 {
		c.mixed = 0
		if c.alone == 0 {
			c.alone = t
		} else {
			c.alone += paceWeight * (min(t, 2*c.alone) - c.alone)
		}
		return
	}
	c.mixed++
	if c.alone == 0 || prefill < int(c.chunk)/2 {
		return // the end of a prompt says little about a full chunk
	}
	// The time grows by less than the tokens do, so the root neither overshoots nor,
	// with a factor between a half and two, follows a single hiccup far.
	factor := math.Sqrt(p.stretch * c.alone / t)
	c.chunk = min(max(c.chunk*min(max(factor, 0.5), 2), 1), float64(p.most))
}
