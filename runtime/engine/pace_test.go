package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// msec is a number of milliseconds.
func msec(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }

// TestPaceFillsTheRoomOfAStep runs a long prompt beside one stream on devices with
// costs of different kinds. Once it knows them, steps are to take what they may, no
// more, and little less.
func TestPaceFillsTheRoomOfAStep(t *testing.T) {
	const depth = 1000
	for _, device := range []struct {
		name  string
		rows  int
		alone float64
		step  func(tokens int) float64 // of a mixed step
		noise float64                  // share by which a step may be longer
		least float64                  // share of the room that must be used
	}{
		{"arithmetic, as on a CPU", 2, 10, func(n int) float64 { return 10 + 2*float64(n) }, 0, 0.8},
		{"arithmetic with noise", 2, 10, func(n int) float64 { return 10 + 2*float64(n) }, 0.2, 0.5},
		{"tiles of rows and a cost of mixed steps, as on a GPU", 64, 5.5, func(n int) float64 {
			return 5.5 + 3.5 + 0.7*float64((n+64)/64)
		}, 0, 0.85},
		{"almost nothing per token", 64, 5, func(n int) float64 { return 5.5 + 0.0001*float64(n) }, 0, 0},
	} {
		t.Run(device.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 1))
			p := &pace{stretch: 2.5, most: 4096, rows: device.rows}
			for range 8 {
				p.observe(1, 0, 0, msec(device.alone))
			}
			steps, over, used := 0, 0, 0.0
			most := 0
			for i := range 1000 {
				n := p.budget(1, depth)
				took := device.alone
				if n > 0 {
					took = device.step(n) * (1 + device.noise*rnd.Float64())
				}
				p.observe(1, n, prefillWork(depth, n), msec(took))
				most = max(most, n)
				if i < 30 || n == 0 {
					continue
				}
				steps++
				used += (took - device.alone) / (1.5 * device.alone)
				if took > 2.5*device.alone {
					over++
				}
			}
			if most >= p.most-device.rows {
				return // it took all there was
			}
			if used /= float64(steps); used < device.least {
				t.Errorf("steps use %.2f of their room, want %.2f", used, device.least)
			}
			if over*20 > steps {
				t.Errorf("%d of %d steps were too long, want one in twenty at most", over, steps)
			}
		})
	}
}

// productsOfRows are the milliseconds that an H100 takes for the products of an 8B model
// with 64, 128, ... rows.
var productsOfRows = [...]float64{5.43, 5.6, 6.15, 6.39, 7.32, 8.21, 10.20, 10.14, 12.84, 12.68, 15.36, 15.37, 19.03, 17.96, 20.18, 20.32}

// TestPaceReadsPromptsBesideAStream simulates prompts of 7000 tokens beside a stream, on
// a GPU whose attention takes the longer, the deeper the prompt is: once the first has
// been read, at most one step in twenty is 2.5 times as long as one that only decodes,
// and prompts take 1.25 times as long as alone. Steps are observed one late, as on a
// device that works ahead.
func TestPaceReadsPromptsBesideAStream(t *testing.T) {
	const alone, promptAlone, prompt = 5.49, 173.5, 7000
	for _, noise := range []float64{0, 0.02} {
		rnd := rand.New(rand.NewPCG(2, 2))
		p := &pace{stretch: 2.5, most: 4096, rows: 64}
		for _, products := range productsOfRows {
			p.costs = append(p.costs, msec(products+1.5))
		}
		type step struct {
			tokens int
			work   float64
			took   time.Duration
		}
		var flight step
		next := func(tokens, depth int) float64 {
			if flight.took > 0 {
				p.observe(1, flight.tokens, flight.work, flight.took)
			}
			took := alone
			if tokens > 0 {
				rows := (1 + tokens + 63) / 64 * 64
				took = productsOfRows[rows/64-1] + 1.5 + 0.002*float64(rows) + 5e-7*prefillWork(depth, tokens)
			}
			took *= 1 + noise*rnd.Float64()
			flight = step{tokens, prefillWork(depth, tokens), msec(took)}
			return took
		}
		for i := range 5 {
			for range 20 {
				next(0, 0)
			}
			var gaps []float64
			total := 0.
			for at := 0; at < prompt; {
				n := min(p.budget(1, at), prompt-at)
				gaps = append(gaps, next(n, at))
				total += gaps[len(gaps)-1]
				at += n
			}
			slices.Sort(gaps)
			p95 := gaps[len(gaps)*95/100] / alone
			if i > 0 && (p95 > 2.5 || total > 1.25*promptAlone) {
				t.Errorf("noise %g, prompt %d: the 95th percentile of gaps is %.2f times as long, want 2.5; it took %.2f times as long, want 1.25",
					noise, i, p95, total/promptAlone)
			}
		}
	}
}
