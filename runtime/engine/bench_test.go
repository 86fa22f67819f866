package engine_test

import (
	"context"
	"sync"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/sample"
)

// nothing is a device that answers every row with token 1 at once: what is left
// is the engine's own work.
type nothing struct{ result backend.Result }

var (
	_ backend.Device = (*nothing)(nil)
	_ backend.Pool   = nothingPool(0)
)

type nothingPool int

func (p nothingPool) Pages() int { return int(p) }
func (nothingPool) Close() error { return nil }

func (*nothing) Describe() string                        { return "nothing" }
func (*nothing) PageBytes() int                          { return 1 }
func (*nothing) NewPool(pages int) (backend.Pool, error) { return nothingPool(pages), nil }
func (*nothing) Close() error                            { return nil }

func (d *nothing) Step(b *backend.Batch) (*backend.Result, error) {
	d.result.Choices, d.result.Logits = d.result.Choices[:0], d.result.Logits[:0]
	for range b.Rows {
		d.result.Choices = append(d.result.Choices, sample.Choice{ID: 1})
		d.result.Logits = append(d.result.Logits, nil)
	}
	return &d.result, nil
}

// BenchmarkDecode measures the engine's own time a step with 64 sequences that
// decode, on a model of 32 layers with 8 KV heads.
func BenchmarkDecode(b *testing.B) {
	const sequences, tokens = 64, 512
	m := &model.Model{Config: model.Config{Layers: 32, KVHeads: 8, Vocab: 1000, Context: 8192}}
	p := plan.Uniform("half", m.Shape(), plan.Rule{Beta: 0.5})
	e, err := engine.New(&nothing{}, m, engine.Options{Pages: 1 << 20, MaxSequences: sequences, StepTokens: 2048})
	if err != nil {
		b.Fatal(err)
	}
	steps := e.Stats().Steps
	for b.Loop() {
		var wg sync.WaitGroup
		for range sequences {
			s, err := e.Submit(context.Background(), engine.Request{Prompt: make([]int32, 3000), Plan: p, MaxTokens: tokens})
			if err != nil {
				b.Fatal(err)
			}
			wg.Go(func() { drain(s) })
		}
		wg.Wait()
	}
	steps = e.Stats().Steps - steps
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(steps), "µs/step")
	b.ReportMetric(float64(b.N*sequences*tokens)/b.Elapsed().Seconds(), "tokens/s")
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
}
