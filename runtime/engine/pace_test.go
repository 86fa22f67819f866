package engine

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestPaceFillsTheRoomOfAStep runs a long prompt beside one stream on devices with
// costs of different kinds. Once it knows them, steps are to take what they may, no
// more, and little less.
func TestPaceFillsTheRoomOfAStep(t *testing.T) {
	const ms = float64(time.Millisecond)
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
				p.observe(1, 0, time.Duration(device.alone*ms))
			}
			steps, over, used := 0, 0, 0.0
			most := 0
			for i := range 1000 {
				n := p.budget(1)
				took := device.alone
				if n > 0 {
					took = device.step(n) * (1 + device.noise*rnd.Float64())
				}
				p.observe(1, n, time.Duration(took*ms))
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
			if most == p.most {
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
