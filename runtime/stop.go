package runtime

import "strings"

// stopMatcher finds stop strings in text that arrives in pieces. It holds back
// the shortest tail that may still become a stop string, so that no part of one
// is ever delivered.
type stopMatcher struct {
	stops   []string
	include bool   // the stop string itself is delivered
	held    string // text not delivered yet
}

func newStopMatcher(stops []string, include bool) *stopMatcher {
	m := &stopMatcher{include: include}
	for _, s := range stops {
		if s != "" {
			m.stops = append(m.stops, s)
		}
	}
	return m
}

// push adds text and returns what may be delivered. stopped says that a stop
// string is complete: nothing after it will be delivered.
func (m *stopMatcher) push(text string) (out string, stopped bool) {
	if len(m.stops) == 0 {
		return text, false
	}
	m.held += text
	at, end := -1, 0
	for _, s := range m.stops {
		// The earliest match wins; of two that begin together, the shorter: it
		// was complete first.
		i := strings.Index(m.held, s)
		if i >= 0 && (at < 0 || i < at || (i == at && i+len(s) < end)) {
			at, end = i, i+len(s)
		}
	}
	if at >= 0 {
		if m.include {
			at = end
		}
		out, m.held = m.held[:at], ""
		return out, true
	}
	keep := 0
	for _, s := range m.stops {
		for n := min(len(s)-1, len(m.held)); n > keep; n-- {
			if strings.HasSuffix(m.held, s[:n]) {
				keep = n
				break
			}
		}
	}
	cut := len(m.held) - keep
	out, m.held = m.held[:cut], m.held[cut:]
	return out, false
}

// flush returns what was held back; the text has ended without completing it.
func (m *stopMatcher) flush() string {
	out := m.held
	m.held = ""
	return out
}
