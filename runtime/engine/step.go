package engine

import (
	"fmt"
	"runtime/debug"
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

// step holds the buffers of a step. They are reused.
type step struct {
	batch  backend.Batch
	seqs   []*sequence // parallel to batch.Seqs
	owners []*sequence // parallel to batch.Rows
	deltas []kv.Delta
	idle   bool // the latest step had nothing to do
	turn   bool // alternates: see schedulePrefills
}

// compute builds a step, runs it and delivers its results.
func (e *Engine) compute() {
	chosen := e.schedule()
	st := &e.step
	st.idle = len(chosen) == 0
	if e.build(chosen); len(st.seqs) == 0 {
		return
	}
	report := StepReport{}
	for i, s := range st.seqs {
		if s.decoding() {
			report.DecodeTokens++
		} else {
			report.Prefills++
			report.PrefillTokens += st.batch.Seqs[i].Len
		}
	}
	e.publish() // a step can take long: its sequences count as running meanwhile
	began := time.Now()
	result, err := e.execute()
	report.Duration, report.Err = time.Since(began), err

	e.count.Steps++
	if err != nil {
		e.count.FailedSteps++
		e.fail(err)
	} else {
		e.count.StepTokens = len(st.batch.Tokens)
		e.count.PrefillTokens += uint64(report.PrefillTokens)
		e.count.DecodeTokens += uint64(report.DecodeTokens)
		e.gate.observe(report.PrefillTokens, report.Duration)
		e.pace.observe(report.DecodeTokens, report.PrefillTokens, report.Duration)
		e.deliver(result)
	}
	e.o.Observer.ObserveStep(report)
}

// build lays the chosen sequences out as a batch.
func (e *Engine) build(chosen []*sequence) {
	st, b := &e.step, &e.step.batch
	b.Tokens, b.Seqs, b.Deltas, b.Rows = b.Tokens[:0], b.Seqs[:0], b.Deltas[:0], b.Rows[:0]
	st.seqs, st.owners = st.seqs[:0], st.owners[:0]
	for _, s := range chosen {
		from, to := s.kv.Len(), s.planned
		st.deltas = st.deltas[:0]
		if s.unknown {
			st.deltas, s.unknown = s.kv.Entries(st.deltas), false
		}
		e.prefixes.Reclaim(s.kv.Need(to))
		var err error
		if st.deltas, err = s.kv.Extend(to, st.deltas); err != nil {
			e.finish(s, ReasonError, err) // its pages had been reserved: never seen
			continue
		}
		for _, d := range st.deltas {
			b.Deltas = append(b.Deltas, backend.TableDelta{Slot: int32(s.slot), Head: d.Head, Block: d.Block, Page: d.Page})
		}
		index := len(b.Seqs)
		b.Seqs = append(b.Seqs, backend.Seq{
			Slot: s.slot, Offset: len(b.Tokens), Len: to - from, Start: from, Layout: s.layout,
		})
		b.Tokens = s.appendTokens(b.Tokens, from, to)
		st.seqs = append(st.seqs, s)
		if s.req.Logits {
			for t := max(from, s.logitsSent); t < min(to, len(s.req.Prompt)-1); t++ {
				b.Rows = append(b.Rows, backend.Row{Seq: index, Token: t - from, KeepLogits: true})
				st.owners = append(st.owners, s)
			}
		}
		if to == s.total() {
			b.Rows = append(b.Rows, backend.Row{Seq: index, Token: to - from - 1, Sampler: s.sampler})
			st.owners = append(st.owners, s)
		}
	}
}

// execute runs the batch. A panic of the device is an error like another: it must
// not end the process that serves everybody else.
func (e *Engine) execute() (r *backend.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.o.Logger.Error("the device panicked", "panic", p, "stack", string(debug.Stack()))
			r, err = nil, fmt.Errorf("the device panicked: %v", p)
		}
	}()
	rows := len(e.step.batch.Rows)
	r, err = e.dev.Step(&e.step.batch)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the device failed: %w", err)
	case r == nil || len(r.Choices) != rows || len(r.Logits) != rows:
		return nil, fmt.Errorf("the device failed: it did not answer the %d rows of the batch", rows)
	}
	return r, nil
}

// fail ends the sequences of a step that failed. Those that were not part of it
// run on.
func (e *Engine) fail(err error) {
	e.failures++
	e.o.Logger.Error("step failed", "error", err, "sequences", len(e.step.seqs), "in a row", e.failures)
	if e.failures >= sickAfter {
		e.sick.Store(&err)
	}
	for _, s := range e.step.seqs {
		e.finish(s, ReasonError, err)
	}
}

// deliver hands the rows of a step to their sequences.
func (e *Engine) deliver(r *backend.Result) {
	e.failures = 0
	e.sick.Store(nil)
	st := &e.step
	row := 0
	for _, s := range st.seqs {
		prefilled := !s.decoding()
		s.kv.Advance()
		if prefilled && e.atStop(s) {
			if key, kept := e.keep(s); kept && e.outlasts(s) {
				e.prefixes.Last(key)
			}
		}
		var logits [][]float32
		var choice *sample.Choice
		for ; row < len(st.owners) && st.owners[row] == s; row++ {
			if st.batch.Rows[row].KeepLogits {
				logits = append(logits, slices.Clone(r.Logits[row]))
			} else {
				choice = &r.Choices[row]
			}
		}
		e.progress(s, logits)
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

// progress reports what a chunk of the prompt added. A sequence that is computed
// again after a preemption adds nothing until it is past where it was.
func (e *Engine) progress(s *sequence, logits [][]float32) {
	processed := min(s.kv.Len(), len(s.req.Prompt))
	if processed <= s.processed {
		return
	}
	s.processed = processed
	s.logitsSent += len(logits)
	if s.req.Progress || len(logits) > 0 {
		s.stream.push(Event{Kind: KindProgress, Processed: processed, Logits: logits})
	}
}

// token adds a sampled token and ends the sequence when it was the last.
func (e *Engine) token(s *sequence, c sample.Choice) {
	now := time.Now()
	if s.firstToken.IsZero() {
		s.firstToken = now
		e.o.Observer.ObserveFirstToken(now.Sub(s.submitted))
	} else {
		e.o.Observer.ObserveNextToken(now.Sub(s.lastToken))
	}
	s.lastToken = now
	s.generated = append(s.generated, c.ID)
	stopped := slices.Contains(s.req.Stop, c.ID)
	s.stream.push(Event{Kind: KindToken, Choice: c, Stopped: stopped})
	switch {
	case stopped:
		e.finish(s, ReasonStop, nil)
	case s.total() >= s.limit:
		e.finish(s, ReasonLength, nil)
	}
}
