package measure

import (
	"errors"
	"fmt"
	"slices"

	"github.com/moaserve/moaserve/runtime/plan"
)

// Point is what is measured at a time: a plan, and the prompts of a batch of streams.
type Point struct {
	plan    *plan.Plan
	depth   int // mean length
	lengths []int
}

// String names the point for errors.
func (x Point) String() string {
	return fmt.Sprintf("plan %s, %d streams of %d tokens", x.plan.Name, len(x.lengths), x.depth)
}

// errNotAtOnce is the cause when the streams of a batch could not run together.
var errNotAtOnce = errors.New("the streams do not all run at a time; raise --kv-memory or --context, or lower --batches, --depths or --steps")

// Points lists what is to be measured, plan by plan, then by depth, then by batch, or
// says what cannot be.
func (m *Meter) Points() ([]Point, error) {
	plans, err := plansOf(m.engine, m.options.Plans)
	if err != nil {
		return nil, err
	}
	var all []Point
	for _, p := range plans {
		for _, depth := range m.options.Depths {
			for _, batch := range m.options.Batches {
				x := Point{p, depth, promptLengths(depth, batch, m.options.PromptMix)}
				if err := m.check(x); err != nil {
					return nil, fmt.Errorf("%v: %w", x, err)
				}
				all = append(all, x)
			}
		}
	}
	return all, nil
}

// check refuses prompts that do not fit the context, streams that do not fit the KV cache
// together, and prompts whose spans change with the answer: they could not be read first
// and continued later.
func (m *Meter) check(x Point) error {
	longest, answer := slices.Max(x.lengths), answerTokens(len(x.lengths), m.options.Steps)
	if longest+1+answer > m.engine.Context() {
		return fmt.Errorf("prompts of up to %d tokens and %d to decode do not fit the context of %d tokens", longest, 1+answer, m.engine.Context())
	}
	if m.options.Steps == 0 {
		return nil
	}
	need := 0
	for _, n := range x.lengths {
		need += x.plan.Bind(n + 1 + answer).Pages(n + 1)
	}
	if have := m.engine.KVPages(); need > have {
		const gb = 1e9
		page := float64(m.engine.PageBytes())
		return fmt.Errorf("the streams hold %d pages of KV cache (%.1f GB), and there are %d (%.1f GB): raise --kv-memory, or lower --batches or --depths",
			need, float64(need)*page/gb, have, float64(have)*page/gb)
	}
	if x.plan.Span != plan.SpanLength {
		return nil
	}
	for _, n := range x.lengths {
		if read, whole := plan.Bucket(n+1), plan.Bucket(n+1+answer); read != whole {
			return fmt.Errorf("the plan has span: length, and its spans for a prompt of %d tokens are those of %d, with an answer those of %d: take prompts of at most %d tokens",
				n, read, whole, read-1-answer)
		}
	}
	return nil
}
