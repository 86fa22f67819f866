package runtime

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStopStringsAcrossPieces(t *testing.T) {
	cases := []struct {
		name    string
		stops   []string
		include bool
		pieces  []string
		want    string
		stopped bool
	}{
		{"none", nil, false, []string{"a", "b"}, "ab", false},
		{"within a piece", []string{"END"}, false, []string{"xENDy"}, "x", true},
		{"across pieces", []string{"END"}, false, []string{"xE", "N", "Dy"}, "x", true},
		{"included", []string{"END"}, true, []string{"xE", "N", "Dy"}, "xEND", true},
		{"false start is delivered", []string{"END"}, false, []string{"xEN", "x"}, "xENx", false},
		{"tail that never completes", []string{"END"}, false, []string{"xEN"}, "xEN", false},
		{"overlapping start", []string{"aab"}, false, []string{"aa", "ab"}, "a", true},
		{"earliest of two", []string{"cd", "b"}, false, []string{"abcd"}, "a", true},
		{"shorter of two at one place", []string{"bcd", "bc"}, true, []string{"abcd"}, "abc", true},
		{"empty stop is ignored", []string{""}, false, []string{"a"}, "a", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newStopMatcher(c.stops, c.include)
			var got strings.Builder
			stopped := false
			for _, p := range c.pieces {
				out, s := m.push(p)
				got.WriteString(out)
				if s {
					stopped = true
					break
				}
			}
			if !stopped {
				got.WriteString(m.flush())
			}
			if got.String() != c.want || stopped != c.stopped {
				t.Errorf("got %q, stopped %v; want %q, %v", got.String(), stopped, c.want, c.stopped)
			}
		})
	}
}

// However the text is cut, the delivered text is that before the first match.
func TestStopDoesNotDependOnTheCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stop := rapid.StringMatching(`[ab]{1,4}`).Draw(t, "stop")
		text := rapid.StringMatching(`[abc]{0,30}`).Draw(t, "text")
		m := newStopMatcher([]string{stop}, false)
		got, stopped := "", false
		for i := 0; i < len(text) && !stopped; {
			n := rapid.IntRange(1, 5).Draw(t, "n")
			j := min(i+n, len(text))
			var out string
			out, stopped = m.push(text[i:j])
			got += out
			i = j
		}
		if !stopped {
			got += m.flush()
		}
		want, _, found := strings.Cut(text, stop)
		if got != want || stopped != found {
			t.Fatalf("stop %q in %q: got %q, %v; want %q, %v", stop, text, got, stopped, want, found)
		}
	})
}
