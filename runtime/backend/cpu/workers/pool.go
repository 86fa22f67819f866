// Package workers runs small data-parallel loops on a fixed set of goroutines.
//
// A decode step makes some hundred parallel loops of a few microseconds each, so
// the cost of starting and ending one decides how far threads help at all. The
// workers of a [Pool] therefore spin for a moment after each loop and find the
// next one within a fraction of a microsecond; when none comes, they park and
// cost nothing.
package workers

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Pool is a fixed set of workers. Run and Close may be called from any
// goroutine; calls take turns. A task must not call Run of its own pool, nor
// runtime.Goexit.
type Pool struct {
	mu     sync.Mutex // serialises Run and Close
	closed bool

	// f and tasks describe the current loop. They are written while no task is
	// claimable, and read only after a claim, which keeps the loop from ending.
	f     func(worker, task int)
	tasks int

	failed  atomic.Bool // skip the remaining tasks: one has panicked
	failure *PanicError // written by the worker that set failed

	// near, shares and nearStage belong to RunNear: its tasks, each worker's part of
	// them, and runShare.
	near      func(worker, task int)
	shares    []share
	nearStage func(worker, task int)

	helpers []*helper // the workers other than the caller of Run
	exited  sync.WaitGroup

	_ pad
	// state is the loop's generation in the upper half and the number of
	// unclaimed tasks in the lower half. With the generation beside it, a claim
	// cannot succeed on behalf of a loop that is over.
	state atomic.Uint64
	_     pad
	// pending counts the tasks that are not finished.
	pending atomic.Int64
	waiting atomic.Bool // the caller of Run parks on done
	done    chan struct{}
	_       pad
}

// pad keeps fields that different threads write on different cache lines; two
// lines, because the adjacent-line prefetcher fetches them in pairs.
type pad [128]byte

// helper is a worker goroutine's place to sleep.
type helper struct {
	parked atomic.Bool
	wake   chan struct{}
	_      pad
}

// PanicError is what [Pool.Run] panics with when a task has panicked.
type PanicError struct {
	Value any    // what the task panicked with
	Stack []byte // of the goroutine that ran the task
}

var _ error = (*PanicError)(nil)

// Error returns the value and the stack of the original panic.
func (p *PanicError) Error() string {
	return fmt.Sprintf("a parallel task panicked: %v\n\n%s", p.Value, p.Stack)
}

// Unwrap returns the panic's value when it is an error, as runtime errors are.
func (p *PanicError) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// New starts a pool of n workers; less than 1 means one for every CPU that Go may
// use. The caller of Run is one of them, so New starts n-1 goroutines, which run
// until Close.
func New(n int) *Pool {
	if n < 1 {
		n = runtime.GOMAXPROCS(0)
	}
	p := &Pool{done: make(chan struct{}, 1), shares: make([]share, n)}
	p.nearStage = p.runShare
	for i := 1; i < n; i++ {
		h := &helper{wake: make(chan struct{}, 1)}
		p.helpers = append(p.helpers, h)
		p.exited.Add(1)
		go p.loop(i, h)
	}
	return p
}

// Workers returns the number of workers, the caller of Run included.
func (p *Pool) Workers() int { return len(p.helpers) + 1 }

// Run calls f(worker, task) for every task of [0, tasks) and returns when all
// calls have returned. Tasks are claimed one by one in ascending order by
// whichever worker is free. worker is in [0, Workers()) and no two concurrent
// calls share it, so it may index scratch memory; the caller of Run is worker 0.
//
// Run itself does not allocate. A caller that wants the same for the whole loop
// keeps f in a variable instead of making a closure a call.
//
// When a task panics, the tasks that are not yet claimed are skipped, and Run
// panics with a *[PanicError]. The pool stays usable.
func (p *Pool) Run(tasks int, f func(worker, task int)) {
	if tasks <= 0 {
		return
	}
	checkTasks(tasks)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run(tasks, f)
}

func checkTasks(n int) {
	if n > math.MaxInt32 {
		panic(fmt.Sprintf("workers: %d tasks in one loop", n))
	}
}

// run is Run for at least one task. p.mu is held.
func (p *Pool) run(tasks int, f func(worker, task int)) {
	if p.closed {
		panic("workers: Run after Close")
	}
	p.f, p.tasks = f, tasks
	p.pending.Store(int64(tasks))
	generation := p.state.Load()>>32 + 1
	p.state.Store(generation<<32 | uint64(tasks))
	p.wake(tasks - 1)
	p.drain(0)
	p.wait()
	p.f = nil
	if p.failed.Load() {
		failure := p.failure
		p.failure = nil
		p.failed.Store(false)
		panic(failure)
	}
}

// Close stops the workers and waits until they are gone.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for _, h := range p.helpers {
		close(h.wake)
	}
	p.exited.Wait()
}

// wake rouses up to n parked helpers. Those that spin see the new state by
// themselves.
func (p *Pool) wake(n int) {
	for i := 0; i < len(p.helpers) && n > 0; i++ {
		h := p.helpers[i]
		if h.parked.Load() && h.parked.CompareAndSwap(true, false) {
			h.wake <- struct{}{}
		}
		n--
	}
}

// claim takes one task; its number is ascending within a loop.
func (p *Pool) claim() (task int, ok bool) {
	for {
		s := p.state.Load()
		left := s & math.MaxUint32
		if left == 0 {
			return 0, false
		}
		if p.state.CompareAndSwap(s, s-1) {
			return p.tasks - int(left), true
		}
	}
}

// drain runs tasks until none is left to claim.
func (p *Pool) drain(worker int) {
	finished := int64(0)
	for p.attempt(worker, &finished) {
	}
	if finished > 0 && p.pending.Add(-finished) == 0 && p.waiting.CompareAndSwap(true, false) {
		p.done <- struct{}{}
	}
}

// attempt is drain up to a panic; it reports whether there may be tasks left.
func (p *Pool) attempt(worker int, finished *int64) (again bool) {
	defer func() {
		if v := recover(); v != nil {
			*finished++
			if p.failed.CompareAndSwap(false, true) {
				p.failure = &PanicError{Value: v, Stack: debug.Stack()}
			}
			again = true
		}
	}()
	for {
		task, ok := p.claim()
		if !ok {
			return false
		}
		if !p.failed.Load() {
			p.f(worker, task)
		}
		*finished++
	}
}

// Spinning has two phases. The first, of some 10 us, only pauses: it catches the
// next loop of a running decode step. The second, of some 200 us, gives the
// processor to any other goroutine between two looks, which a server under load
// has; it covers the time between two steps, because waking a parked thread can
// take 100 us on a virtual machine.
const (
	pauseRounds = 64
	yieldRounds = 512
	// A PAUSE takes 40 to 140 cycles on current processors.
	pausesPerRound = 4
)

// spin looks for a condition for a bounded time and reports whether it came true.
func spin(condition func() bool) bool {
	for i := range pauseRounds + yieldRounds {
		if condition() {
			return true
		}
		if i >= pauseRounds {
			runtime.Gosched()
		}
		procyield(pausesPerRound)
	}
	return condition()
}

// wait returns when all tasks of the loop are finished.
func (p *Pool) wait() {
	idle := func() bool { return p.pending.Load() == 0 }
	if spin(idle) {
		return
	}
	p.waiting.Store(true)
	if idle() && p.waiting.CompareAndSwap(true, false) {
		return
	}
	<-p.done
}

// loop is a helper's life.
func (p *Pool) loop(worker int, h *helper) {
	defer p.exited.Done()
	work := func() bool { return p.state.Load()&math.MaxUint32 != 0 }
	for {
		if spin(work) {
			p.drain(worker)
			continue
		}
		h.parked.Store(true)
		if work() && h.parked.CompareAndSwap(true, false) {
			continue
		}
		if _, open := <-h.wake; !open {
			return
		}
	}
}
