package backendtest

import (
	"errors"
	"slices"

	"github.com/moaserve/moaserve/runtime/backend"
)

// FakeAhead is a [Fake] that works ahead. It computes a step as late as it may: when
// its answer is wanted or when a page is copied. So whatever the scheduler does in
// between, to pages that the step needs, is seen.
type FakeAhead struct {
	*Fake
	underway []*backend.Batch
	answers  []fakeAnswer
	latest   *backend.Result // of the latest step computed
}

type fakeAnswer struct {
	result *backend.Result
	err    error
}

var _ backend.Ahead = (*FakeAhead)(nil)

// NewFakeAhead returns a Fake that works ahead. Choices stay on the device unless a
// row has a mask.
func NewFakeAhead(f *Fake) *FakeAhead {
	a := &FakeAhead{Fake: f}
	f.flush = a.flush
	return a
}

// Begin keeps the batch for later.
func (f *FakeAhead) Begin(b *backend.Batch) (bool, error) {
	onDevice := func(b *backend.Batch) bool {
		return !slices.ContainsFunc(b.Rows, func(r backend.Row) bool { return r.Mask != nil })
	}
	switch n := len(f.underway) + len(f.answers); {
	case n > 1:
		return false, errors.New("fake: a third step begins while two are under way")
	case n == 1 && len(f.underway) == 1 && !onDevice(f.underway[0]):
		return false, errors.New("fake: a step begins before one whose choices the host makes has ended")
	}
	f.underway = append(f.underway, b)
	return onDevice(b), nil
}

// End computes the oldest step, unless it was, and answers it.
func (f *FakeAhead) End() (*backend.Result, error) {
	if len(f.answers) == 0 {
		if len(f.underway) == 0 {
			return nil, errors.New("fake: no step is under way")
		}
		f.computeNext()
	}
	a := f.answers[0]
	f.answers = f.answers[1:]
	return a.result, a.err
}

// Step computes a batch that needs no other.
func (f *FakeAhead) Step(b *backend.Batch) (*backend.Result, error) {
	if len(f.underway)+len(f.answers) > 0 {
		return nil, errors.New("fake: Step while another step is under way")
	}
	return f.Fake.Step(b)
}

// flush computes what is under way.
func (f *FakeAhead) flush() {
	for len(f.underway) > 0 {
		f.computeNext()
	}
}

func (f *FakeAhead) computeNext() {
	b := f.underway[0]
	f.underway = f.underway[1:]
	named := *b
	named.Tokens = slices.Clone(b.Tokens)
	for i, t := range named.Tokens {
		if t >= 0 {
			continue
		}
		if row := int(-1 - t); f.latest != nil && row < len(f.latest.Choices) {
			named.Tokens[i] = f.latest.Choices[row].ID
		}
	}
	r, err := f.Fake.Step(&named)
	f.latest = r
	f.answers = append(f.answers, fakeAnswer{r, err})
}
