package workers

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPool(t testing.TB, n int) *Pool {
	p := New(n)
	t.Cleanup(p.Close)
	return p
}

// loops are the two kinds of loop.
var loops = map[string]func(p *Pool, tasks int, f func(worker, task int)){"Run": (*Pool).Run, "RunNear": (*Pool).RunNear}

func TestEveryTaskIsCalledOnce(t *testing.T) {
	for name, run := range loops {
		for _, workers := range []int{1, 2, 3, 8} {
			for _, tasks := range []int{0, 1, 2, 7, 1000} {
				t.Run(fmt.Sprintf("%s, %d workers, %d tasks", name, workers, tasks), func(t *testing.T) {
					p := newPool(t, workers)
					calls := make([]int, tasks) // plain ints: the race detector proves that tasks are not shared
					for round := 1; round <= 20; round++ {
						run(p, tasks, func(_, task int) { calls[task]++ })
						for task, n := range calls {
							if n != round {
								t.Fatalf("round %d: task %d ran %d times", round, task, n)
							}
						}
					}
				})
			}
		}
	}
}

func TestWorkerIndexIsExclusive(t *testing.T) {
	p := newPool(t, 4)
	if p.Workers() != 4 {
		t.Fatalf("Workers() = %d, want 4", p.Workers())
	}
	for name, run := range loops {
		scratch := make([]int, p.Workers())
		run(p, 5000, func(worker, _ int) { scratch[worker]++ })
		total := 0
		for _, n := range scratch {
			total += n
		}
		if total != 5000 {
			t.Errorf("%s: the workers' private counters sum to %d, want 5000", name, total)
		}
	}
}

func TestNearTasksFollowOneAnother(t *testing.T) {
	p := newPool(t, 2)
	var order [2][]int
	var both sync.WaitGroup // each of the two waits until the other has begun, too
	both.Add(2)
	p.RunNear(100, func(worker, task int) {
		if order[worker] = append(order[worker], task); len(order[worker]) == 1 {
			both.Done()
			both.Wait()
		}
	})
	for worker, tasks := range order {
		// Its own share ascends; what it takes from the other's end descends.
		i := 1
		for i < len(tasks) && tasks[i] == tasks[i-1]+1 {
			i++
		}
		if tasks[0] != 50*worker || i < len(tasks) && i != 50 {
			t.Errorf("worker %d did %v", worker, tasks)
		}
	}
}

func TestLoopsOfVaryingSizeDoNotMixTasks(t *testing.T) {
	p := newPool(t, 8)
	for i := range 3000 {
		n := 1 + i*7%13
		var sum atomic.Int64
		p.Run(n, func(_, task int) {
			if task >= n {
				t.Errorf("loop %d of %d tasks was given task %d", i, n, task)
			}
			sum.Add(int64(task) + 1)
		})
		if want := int64(n * (n + 1) / 2); sum.Load() != want {
			t.Fatalf("loop %d: tasks sum to %d, want %d", i, sum.Load(), want)
		}
	}
}

func TestParkedWorkersWakeUp(t *testing.T) {
	p := newPool(t, 4)
	for range 3 {
		waitParked(t, p)
		// Every task waits for all the others, so that the loop ends only if all
		// workers take part.
		var arrived atomic.Int32
		p.Run(4, func(_, _ int) {
			arrived.Add(1)
			for arrived.Load() < 4 {
				runtime.Gosched()
			}
		})
	}
}

func waitParked(t *testing.T, p *Pool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, h := range p.helpers {
		for !h.parked.Load() {
			if time.Now().After(deadline) {
				t.Fatal("an idle worker does not park")
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestCallerParksWhileLongTasksRun(t *testing.T) {
	p := newPool(t, 2)
	release := make(chan struct{})
	var first sync.Once
	go func() {
		for !p.waiting.Load() {
			time.Sleep(time.Millisecond)
		}
		close(release)
	}()
	var helperTook atomic.Bool
	p.Run(2, func(worker, _ int) {
		if worker == 0 { // keep the second task for the helper
			for !helperTook.Load() {
				runtime.Gosched()
			}
			return
		}
		first.Do(func() { helperTook.Store(true); <-release })
	})
}

func TestPanicInANearTaskReachesTheCaller(t *testing.T) {
	p := newPool(t, 3)
	for range 20 {
		func() {
			defer func() {
				if e, ok := recover().(*PanicError); !ok || e.Value != "no" {
					t.Errorf("recovered %v", e)
				}
			}()
			p.RunNear(100, func(_, task int) {
				if task == 40 {
					panic("no")
				}
			})
		}()
		n := atomic.Int64{}
		p.RunNear(100, func(_, _ int) { n.Add(1) })
		if n.Load() != 100 {
			t.Fatalf("%d of 100 tasks ran after a panic", n.Load())
		}
	}
}

func TestPanicReachesTheCallerOfRun(t *testing.T) {
	cause := errors.New("boom")
	for _, workers := range []int{1, 4} {
		p := newPool(t, workers)
		for range 10 {
			func() {
				defer func() {
					got, ok := recover().(*PanicError)
					if !ok {
						t.Fatalf("recovered %v, want a *PanicError", got)
					}
					if !errors.Is(got, cause) {
						t.Errorf("errors.Is does not find the cause in %v", got)
					}
					if !strings.Contains(string(got.Stack), "TestPanicReachesTheCallerOfRun") {
						t.Errorf("the stack does not show the task:\n%s", got.Stack)
					}
				}()
				p.Run(100, func(_, task int) {
					if task%10 == 3 {
						panic(cause)
					}
				})
				t.Error("Run returned")
			}()
		}
		var n atomic.Int32
		p.Run(10, func(_, _ int) { n.Add(1) })
		if n.Load() != 10 {
			t.Errorf("after a panic, Run executed %d of 10 tasks", n.Load())
		}
	}
}

func TestConcurrentCallersTakeTurns(t *testing.T) {
	p := newPool(t, 3)
	var running, wrong atomic.Int32
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 50 {
				var own atomic.Int32
				p.Run(1, func(_, _ int) {
					if running.Add(1) != 1 {
						wrong.Add(1)
					}
					own.Add(1)
					running.Add(-1)
				})
				if own.Load() != 1 {
					wrong.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d loops overlapped or were lost", wrong.Load())
	}
}

func TestMoreWorkersThanProcessors(t *testing.T) {
	p := newPool(t, 8*runtime.GOMAXPROCS(0))
	var n atomic.Int64
	for range 200 {
		p.Run(64, func(_, _ int) { n.Add(1) })
	}
	if n.Load() != 200*64 {
		t.Errorf("%d tasks ran, want %d", n.Load(), 200*64)
	}
}

func TestLoopsDoNotAllocate(t *testing.T) {
	p := newPool(t, 2)
	f := func(_, _ int) {}
	for name, run := range loops {
		if n := testing.AllocsPerRun(100, func() { run(p, 8, f) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestCloseIsIdempotentAndRunAfterCloseSaysSo(t *testing.T) {
	p := New(3)
	p.Close()
	p.Close()
	defer func() {
		if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "after Close") {
			t.Errorf("recovered %v", v)
		}
	}()
	p.Run(1, func(_, _ int) {})
}

// BenchmarkRun is the cost of one parallel loop in which every worker takes
// part: each task waits until all have been claimed.
func BenchmarkRun(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			p := newPool(b, workers)
			var arrived atomic.Int64
			target := int64(0)
			f := func(_, _ int) {
				arrived.Add(1)
				for arrived.Load() < target {
					procyield(1)
				}
			}
			for b.Loop() {
				target += int64(workers)
				p.Run(workers, f)
			}
		})
	}
}
