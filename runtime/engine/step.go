package engine

import (
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/kv"
)

// step is one step of the device, from its batch to its answer. The buffers are
// reused.
type step struct {
	batch  backend.Batch
	seqs   []*sequence // parallel to batch.Seqs
	owners []*sequence // parallel to batch.Rows
	deltas []kv.Delta
	work   float64 // of its prompts: prefillWork
	began  time.Time
	report StepReport
	// awaited: what the step computes of a prompt is kept or reported when it is done, or
	// was the last of it.
	awaited bool
	// ahead: the engine went on as if the step were done. Its sequences have advanced,
	// and the tokens that it chooses stand in them as names.
	ahead bool
}

// compute builds a step, begins it, and delivers the results of the one before,
// which the device computed meanwhile. A step whose tokens the device keeps is left
// under way, unless a prompt gets somewhere with it.
func (e *Engine) compute() {
	answered := e.count.Steps
	chosen := e.schedule()
	st := &e.steps[0]
	if e.flight == st {
		st = &e.steps[1]
	}
	e.build(st, chosen)
	if len(st.seqs) == 0 {
		// An answer, in schedule or now, may have ended sequences and so made room.
		e.settle()
		e.idle = len(chosen) == 0 && e.count.Steps == answered
		return
	}
	e.idle = false
	e.publish() // a step can take long: its sequences count as running meanwhile
	st.began = time.Now()
	onDevice, err := e.deviceBegin(st)
	e.settle()
	switch {
	case err != nil:
		e.answer(st, nil, err)
	case onDevice && !st.awaited:
		e.goAhead(st)
	default:
		r, err := e.deviceEnd(st)
		e.answer(st, r, err)
	}
}

// build lays the chosen sequences out as a batch.
func (e *Engine) build(st *step, chosen []*sequence) {
	b := &st.batch
	b.Tokens, b.Seqs, b.Deltas, b.Rows = b.Tokens[:0], b.Seqs[:0], b.Deltas[:0], b.Rows[:0]
	st.seqs, st.owners, st.report = st.seqs[:0], st.owners[:0], StepReport{}
	st.awaited, st.ahead, st.work = false, false, 0
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
		if s.decoding() {
			st.report.DecodeTokens++
		} else {
			st.report.Prefills++
			st.report.PrefillTokens += to - from
			st.work += prefillWork(from, to-from)
			st.awaited = st.awaited || s.req.Logits || e.isStop(s, to)
		}
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

// goAhead lets the engine go on while the device computes a step: each sequence has its
// tokens computed and its next one chosen, though only the device knows which.
func (e *Engine) goAhead(st *step) {
	st.ahead = true
	e.flight = st
	for _, s := range st.seqs {
		if s.slot != noSlot { // else its last token came while this step began
			s.kv.Advance()
		}
	}
	for row, s := range st.owners {
		if s.slot != noSlot {
			s.generated = append(s.generated, backend.ChoiceOf(row))
		}
	}
}

// settle waits for the step under way and delivers its results. It reports whether
// there was one. Sequences may have ended when it returns.
func (e *Engine) settle() bool {
	st := e.flight
	if st == nil {
		return false
	}
	e.flight = nil
	r, err := e.deviceEnd(st)
	e.answer(st, r, err)
	return true
}
