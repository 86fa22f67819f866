package measure

import (
	"slices"
	"time"
)

// tick is the arrival of one token, or the end of a stream.
type tick struct {
	stream int
	at     time.Time
	ended  error
}

// collector decides from the arrival of tokens which of them count.
type collector struct {
	steps    int
	busyTime func() (time.Duration, bool)

	count, base, from []int // tokens of each stream: so far, when all had begun, when counting began
	last              []time.Time
	joined, counting  bool
	done              bool
	begin, end        time.Time
	gaps              []time.Duration

	busyBegin, busyEnd time.Duration
	busyKnown          bool
}

func newCollector(streams, steps int, busyTime func() (time.Duration, bool)) *collector {
	return &collector{steps: steps, busyTime: busyTime, count: make([]int, streams), last: make([]time.Time, streams)}
}

// arrive counts a token.
func (c *collector) arrive(t tick) {
	if c.done {
		return
	}
	c.count[t.stream]++
	if c.counting {
		c.gaps = append(c.gaps, t.at.Sub(c.last[t.stream]))
	}
	c.last[t.stream] = t.at
	switch {
	case !c.joined:
		if slices.Min(c.count) > 0 {
			c.joined, c.base = true, slices.Clone(c.count)
		}
	case !c.counting:
		if since(c.count, c.base) >= settleSteps {
			c.counting, c.from, c.begin = true, slices.Clone(c.count), t.at
			c.busyBegin, c.busyKnown = c.busyTime()
		}
	case since(c.count, c.from) >= c.steps:
		c.done, c.end = true, t.at
		c.busyEnd, _ = c.busyTime()
	}
}

// since returns the least number of tokens by which a stream has grown.
func since(count, base []int) int {
	least := count[0] - base[0]
	for i := range count {
		least = min(least, count[i]-base[i])
	}
	return least
}
