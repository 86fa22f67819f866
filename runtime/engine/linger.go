package engine

import "time"

const (
	// lingerShare of a decode step passes before the next one begins, so that a request
	// that comes meanwhile is part of it. The rest is for the host to build it.
	lingerShare = 0.6
	// lingerSpare is left at least: timers are late by some of it.
	lingerSpare = time.Millisecond
)

// linger waits while a step is under way that only decodes, as long as the device has
// enough to do: the later the next one is built, the more requests it can take in. It
// returns at once when something happens, and false when the engine is to end.
func (e *Engine) linger() bool {
	wait := time.Until(e.beginBy())
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	return e.wait(timer.C)
}

// beginBy returns when the next step is to begin at the latest, a time that has passed
// when it had better begin now.
func (e *Engine) beginBy() time.Time {
	st := e.flight
	if st == nil || st.report.PrefillTokens > 0 || e.queue.len() > 0 || e.prefilling() != nil {
		return time.Time{}
	}
	step := e.pace.decodeStep(st.report.DecodeTokens)
	return e.startOf(st).Add(min(time.Duration(lingerShare*float64(step)), step-lingerSpare))
}
