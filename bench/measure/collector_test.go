package measure

import (
	"slices"
	"testing"
	"time"
)

func TestOnlyStepsOfAllStreamsCount(t *testing.T) {
	start := time.Now()
	busy := time.Duration(0)
	c := newCollector(2, 3, func() (time.Duration, bool) { return busy, true })
	step := 0
	token := func(streams ...int) {
		step++
		busy += 9 * time.Millisecond
		for _, s := range streams {
			c.arrive(tick{stream: s, at: start.Add(time.Duration(step) * 10 * time.Millisecond)})
		}
	}
	for range 5 {
		token(0) // alone
	}
	for range 1 + settleSteps { // the first token of the other, and what does not count
		token(0, 1)
	}
	if !c.counting {
		t.Fatal("nothing is counted yet")
	}
	for range 3 {
		token(0, 1)
	}
	if !c.done {
		t.Fatal("three steps were not enough")
	}
	token(0, 1)
	if got := c.count[0] - c.from[0]; got != 3 || c.count[1]-c.from[1] != 3 || c.from[0] != 5+1+settleSteps || c.from[1] != 1+settleSteps {
		t.Errorf("counted from %v to %v", c.from, c.count)
	}
	if took := c.end.Sub(c.begin); took != 30*time.Millisecond {
		t.Errorf("three steps took %v", took)
	}
	if got := c.busyEnd - c.busyBegin; got != 27*time.Millisecond {
		t.Errorf("busy for %v", got)
	}
	if len(c.gaps) != 6 || slices.Max(c.gaps) != 10*time.Millisecond {
		t.Errorf("the gaps are %v", c.gaps)
	}
}
