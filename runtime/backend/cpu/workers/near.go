package workers

import (
	"math"
	"sync/atomic"
)

// RunNear is Run for tasks that read neighbouring memory: a worker's tasks follow
// one another, so that what one of them fetches ahead is what the next one reads.
// Each worker begins with an equal share of the tasks, in ascending order; one that
// has done its share takes tasks from the end of the others'.
func (p *Pool) RunNear(tasks int, f func(worker, task int)) {
	if tasks <= 0 {
		return
	}
	checkTasks(tasks)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.near = f
	for w := range p.shares {
		p.shares[w].set(tasks*w/len(p.shares), tasks*(w+1)/len(p.shares))
	}
	// A worker that comes late finds its share as far as it is left.
	p.run(min(tasks, len(p.shares)), p.nearStage)
	p.near = nil
}

// runShare runs tasks for as long as any worker's share has some.
func (p *Pool) runShare(worker, _ int) {
	for i := range p.shares {
		s := &p.shares[(worker+i)%len(p.shares)]
		for {
			task, ok := s.take(i == 0)
			if !ok {
				break
			}
			if p.failed.Load() {
				continue
			}
			p.near(worker, task)
		}
	}
}

// share is the tasks that are left of one worker's: the first in the upper half,
// the end in the lower half.
type share struct {
	left atomic.Uint64
	_    pad
}

func (s *share) set(first, end int) { s.left.Store(uint64(first)<<32 | uint64(end)) }

// take removes the first task or the last one.
func (s *share) take(first bool) (task int, ok bool) {
	for {
		left := s.left.Load()
		from, end := left>>32, left&math.MaxUint32
		if from >= end {
			return 0, false
		}
		next := left - 1
		task := end - 1
		if first {
			next, task = left+1<<32, from
		}
		if s.left.CompareAndSwap(left, next) {
			return int(task), true
		}
	}
}
