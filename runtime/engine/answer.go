package engine

import (
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/kv"
	"github.com/moaserve/moaserve/runtime/sample"
)

// sickAfter is the number of failed steps in a row after which the device counts
// as broken: one can be a single request's doing, three of different batches
// cannot.
const sickAfter = 3

// sickFor is for how long after the latest of them. A balancer that sends nothing to a
// server that is not ready would otherwise never let a step succeed.
const sickFor = 15 * time.Second

// sickness is what Healthy reports.
type sickness struct {
	err  error
	at   time.Time
	lost bool // for good
}

// answer takes the outcome of a step: its results, or the error for which there are
// none.
func (e *Engine) answer(st *step, r *backend.Result, err error) {
	now, began := time.Now(), e.startOf(st)
	e.answered = now
	st.report.Duration, st.report.Err = now.Sub(began), err
	e.count.Steps++
	if err != nil {
		e.count.FailedSteps++
		e.fail(st, err)
	} else {
		e.count.StepTokens = len(st.batch.Tokens)
		e.count.PrefillTokens += uint64(st.report.PrefillTokens)
		e.count.DecodeTokens += uint64(st.report.DecodeTokens)
		e.count.Busy += r.Busy
		e.gate.observe(st.report.PrefillTokens, st.report.Duration)
		e.pace.observe(st.report.DecodeTokens, st.report.PrefillTokens, st.work, st.report.Duration)
		e.deliver(st, r)
		// Those who wait for the tokens go first: where the device is the processor, the
		// next step would keep them waiting to its end.
		runtime.Gosched()
	}
	e.o.Observer.ObserveStep(st.report)
}

// startOf returns when the device turned to a step that is not answered yet and before
// which all are.
func (e *Engine) startOf(st *step) time.Time {
	if e.answered.After(st.began) { // until then it had another to compute
		return e.answered
	}
	return st.began
}

// fail ends the sequences of a step that failed. Those that were not part of it
// run on.
func (e *Engine) fail(st *step, err error) {
	e.failures++
	e.o.Logger.Error("step failed", "error", err, "sequences", len(st.seqs), "in a row", e.failures)
	if e.failures >= sickAfter {
		e.sick.Store(&sickness{err: err, at: time.Now()})
	}
	if errors.Is(err, backend.ErrDeviceLost) {
		e.lose(err)
	}
	for _, s := range st.seqs {
		if s.slot != noSlot {
			e.finish(s, ReasonError, err)
		} else if st.ahead && s.left != (kv.Key{}) {
			// It ended while the step was under way, and what was kept of it may hold what
			// the step should have computed.
			e.forget(s.left)
		}
	}
}

// forget removes a prefix that was never computed. Those who continued it begin anew.
func (e *Engine) forget(key kv.Key) {
	e.prefixes.Remove(key)
	if e.spill != nil {
		e.spill.Remove(key)
	}
	for _, s := range slices.Clone(e.running) {
		if s.continued == key {
			e.disown(s)
			e.requeue(s)
		}
	}
}

// disown takes a sequence out of the steps under way: it may be running again, from
// another place, when they are answered.
func (e *Engine) disown(s *sequence) {
	nobody := &sequence{slot: noSlot}
	for i := range e.steps {
		for _, list := range [][]*sequence{e.steps[i].seqs, e.steps[i].owners} {
			for k, x := range list {
				if x == s {
					list[k] = nobody
				}
			}
		}
	}
}

// lose ends everything: the device is beyond use.
func (e *Engine) lose(err error) {
	select {
	case <-e.lost:
		return // the step that was under way beside tells it once more
	default:
	}
	e.sick.Store(&sickness{err: err, lost: true})
	e.gate.close()
	e.endAll(err)
	e.prefixes.Clear() // their pages are gone
	close(e.lost)
}

// deliver hands the rows of a step to their sequences. Those that ended since it
// began get nothing.
func (e *Engine) deliver(st *step, r *backend.Result) {
	e.failures = 0
	e.sick.Store(nil)
	row := 0
	for i, s := range st.seqs {
		first, to := row, st.batch.Seqs[i].Start+st.batch.Seqs[i].Len
		for row < len(st.owners) && st.owners[row] == s {
			row++
		}
		if s.slot == noSlot {
			continue
		}
		prefilled := !st.ahead && !s.decoding()
		if !st.ahead {
			s.kv.Advance()
		}
		if prefilled && e.isStop(s, to) {
			if key, kept := e.keep(s); kept && e.outlasts(s) {
				e.prefixes.Last(key)
			}
		}
		var logits [][]float32
		var choice *sample.Choice
		for k := first; k < row; k++ {
			if st.batch.Rows[k].KeepLogits {
				logits = append(logits, slices.Clone(r.Logits[k]))
			} else {
				choice = &r.Choices[k]
			}
		}
		e.progress(s, to, logits)
		if choice != nil {
			e.token(s, *choice)
			if prefilled && s.slot != noSlot {
				// The prefill's peak is over: others may have what it held back.
				need := max(s.kv.Pages(), s.reservation(e.o.chunkTokens(), e.pages.Pages()))
				e.recommit(s, min(s.commit, need))
			}
		}
	}
}

// progress reports that a prompt is computed up to somewhere. A sequence that is
// computed again after a preemption adds nothing until it is past where it was.
func (e *Engine) progress(s *sequence, to int, logits [][]float32) {
	processed := min(to, len(s.req.Prompt))
	if processed <= s.processed {
		return
	}
	s.processed = processed
	s.logitsSent += len(logits)
	if s.req.Progress || len(logits) > 0 {
		s.stream.push(Event{Kind: KindProgress, Processed: processed, Logits: logits})
	}
}

// token takes a sampled token and ends the sequence when it was the last.
func (e *Engine) token(s *sequence, c sample.Choice) {
	now := time.Now()
	if s.firstToken.IsZero() {
		s.firstToken = now
		e.o.Observer.ObserveFirstToken(now.Sub(s.submitted))
	} else {
		e.o.Observer.ObserveNextToken(now.Sub(s.lastToken))
	}
	s.lastToken = now
	s.takes(c.ID)
	stopped := slices.Contains(s.req.Stop, c.ID)
	s.stream.push(Event{Kind: KindToken, Choice: c, Stopped: stopped})
	switch {
	case stopped:
		e.finish(s, ReasonStop, nil)
	case s.total() >= s.limit:
		e.finish(s, ReasonLength, nil)
	}
}
