package measure

import (
	"slices"
	"testing"
)

func TestPromptLengthsSpreadAroundTheDepth(t *testing.T) {
	for _, c := range []struct {
		depth, batch int
		mix          float64
		least, most  int
	}{
		{8192, 1, 0, 8192, 8192},
		{8192, 1, 0.5, 8192, 8192},
		{1000, 4, 0, 1000, 1000},
		{1000, 10, 0.5, 550, 1450}, // the middles of ten parts of 500 to 1500
		{1, 3, 0.9, 1, 2},
	} {
		lengths := promptLengths(c.depth, c.batch, c.mix)
		if len(lengths) != c.batch || slices.Min(lengths) != c.least || slices.Max(lengths) != c.most {
			t.Errorf("%+v: %v", c, lengths)
		}
		if off := sum(lengths) - c.depth*c.batch; off < -c.batch || off > c.batch {
			t.Errorf("%+v: %d tokens in all", c, sum(lengths))
		}
		if again := promptLengths(c.depth, c.batch, c.mix); !slices.Equal(lengths, again) {
			t.Errorf("%+v: %v, then %v", c, lengths, again)
		}
	}
}
