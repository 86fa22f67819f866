package measure

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestGapsAreSplitByTheLongPrompt(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	s := &gapStream{enough: 1 << 30}
	for i := range settleSteps + 3 {
		s.arrive(at(10 * i)) // the last at 100
	}
	s.arrive(at(150)) // the prompt was asked for at 105
	s.arrive(at(180))
	s.arrive(at(195)) // its first token came at 190
	s.arrive(at(205))
	before, within := s.split(at(105), at(190))
	if len(before) != 2 || before[0] != 10*time.Millisecond {
		t.Errorf("alone: %v", before)
	}
	if len(within) != 3 || within[0] != 50*time.Millisecond || within[1] != 30*time.Millisecond || within[2] != 15*time.Millisecond {
		t.Errorf("beside: %v", within)
	}
}

// lateTarget answers prompts at once; streams end after some tokens.
type lateTarget struct{ tokens int }

var _ target = (*lateTarget)(nil)

func (l *lateTarget) complete(ctx context.Context, prompt, answer int, _ uint64, arrived func(time.Time)) error {
	for range min(answer, l.tokens) {
		arrived(time.Now())
	}
	if answer > l.tokens {
		return errors.New("the server is tired")
	}
	return nil
}

func TestAStreamThatEndsTooEarlyIsAnError(t *testing.T) {
	g := &gapMeter{target: &lateTarget{tokens: 5}, options: GapOptions{LongPrompt: 10, StreamPrompt: 10, Answer: 100, Gaps: 20, Runs: 1}}
	if err := g.measure(t.Context()); err == nil || !strings.Contains(err.Error(), "before 28 gaps") || !strings.Contains(err.Error(), "tired") {
		t.Errorf("got %v", err)
	}
}
