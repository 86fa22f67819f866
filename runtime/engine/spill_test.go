package engine_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/kv/spill"
	"github.com/moaserve/moaserve/runtime/plan"
)

// keptIn returns the options of an engine that keeps prefixes in a directory.
func keptIn(dir string, pages int) engine.Options {
	return engine.Options{Pages: pages, OpenSpill: func(format string, pageBytes int) (*spill.Store, error) {
		return spill.Open(dir, spill.Options{MaxBytes: 100 << 20, Format: format, Model: "fake", PageBytes: pageBytes})
	}}
}

// files returns the paths of the prefixes in a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.kv"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRestartedEngineContinuesWhatItHasRead(t *testing.T) {
	for _, span := range []plan.Span{plan.SpanPosition, plan.SpanLength} {
		dir, p := t.TempDir(), mixed(span)
		text := prompt(315, 1)
		e := free(t, keptIn(dir, 1000))
		got, _ := ask(t, e, engine.Request{Prompt: text, Plan: p})
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = free(t, keptIn(dir, 1000))
		text = slices.Concat(text, got, prompt(20, 2))
		if _, cached := ask(t, e, engine.Request{Prompt: text, Plan: p}); cached != 320 {
			t.Errorf("span %s: %d tokens were cached after a restart, want 320", span, cached)
		}
		if _, cached := ask(t, e, engine.Request{Prompt: text, Plan: p, Tenant: "b"}); cached != 0 {
			t.Errorf("span %s: %d tokens were cached for another tenant", span, cached)
		}
		if s := e.Stats().Spill; s.Loaded != 1 || s.Damaged != 0 {
			t.Errorf("span %s: %+v", span, s)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedPrefixIsComputedAgain(t *testing.T) {
	dir := t.TempDir()
	e := free(t, keptIn(dir, 1000))
	got, _ := ask(t, e, engine.Request{Prompt: prompt(315, 1)})
	text := slices.Concat(prompt(315, 1), got, prompt(9, 2))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, dir) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e = free(t, keptIn(dir, 1000))
	for _, want := range []int{0, 320} { // the second time it is in the cache
		if _, cached := ask(t, e, engine.Request{Prompt: text}); cached != want {
			t.Errorf("%d tokens were cached, want %d", cached, want)
		}
	}
	if s := e.Stats().Spill; s.Damaged == 0 {
		t.Errorf("%+v", s)
	}
}

func TestAnotherQuestionAfterARestart(t *testing.T) {
	dir := t.TempDir()
	document := prompt(1500, 1)
	e := free(t, keptIn(dir, 4000))
	ask(t, e, engine.Request{Prompt: slices.Concat(document, prompt(30, 2))})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d files, want two: the last before the prompt's end, and the answer's", n)
	}
	e = free(t, keptIn(dir, 4000))
	if _, cached := ask(t, e, engine.Request{Prompt: slices.Concat(document, prompt(30, 3))}); cached != 1024 {
		t.Errorf("%d tokens were cached, want 1024", cached)
	}
}

func TestEvictedPrefixComesBackFromDisk(t *testing.T) {
	dir, dense := t.TempDir(), plan.NewDense(shape)
	// Room for one text of 600 tokens (10 blocks in each of 4 heads) and no more.
	e := free(t, keptIn(dir, 44))
	text := prompt(600, 1)
	got, _ := ask(t, e, engine.Request{Prompt: text, Plan: dense})
	for seed := range uint64(3) {
		ask(t, e, engine.Request{Prompt: prompt(600, seed+2), Plan: dense})
	}
	if _, cached := ask(t, e, engine.Request{Prompt: slices.Concat(text, got, prompt(9, 5)), Plan: dense}); cached != 576 {
		t.Errorf("%d tokens were cached, want 576", cached)
	}
	if s := e.Stats(); s.Spill.Loaded != 1 { // from its file, or on its way to it
		t.Errorf("%+v", s.Spill)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if len(files(t, dir)) == 0 {
		t.Error("nothing was written")
	}
}

func TestEndedSessionLeavesTheDiskToo(t *testing.T) {
	dir := t.TempDir()
	e := free(t, keptIn(dir, 1000))
	ask(t, e, engine.Request{Prompt: prompt(100, 1), Session: "s"})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, dir)); n != 1 {
		t.Errorf("%d files after the first run, want 1", n)
	}
	e = free(t, keptIn(dir, 1000))
	ask(t, e, engine.Request{Prompt: prompt(100, 1), Session: "s"})
	if !e.EndSession("", "s") {
		t.Error("there is no session")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, dir)); n != 0 {
		t.Errorf("%d files after the session was ended, want none", n)
	}
}

func TestPoolWithoutPageIOCannotSpill(t *testing.T) {
	o := keptIn(t.TempDir(), 10)
	_, err := engine.New(opaque{}, fakeModel(), o)
	if err == nil {
		t.Error("it was accepted")
	}
}

// opaque is a device whose pages cannot be copied.
type opaque struct{ backend.Device }

func (opaque) PageBytes() int { return 64 }

func (opaque) NewPool(pages int) (backend.Pool, error) { return opaquePool(pages), nil }

type opaquePool int

func (p opaquePool) Pages() int { return int(p) }
func (opaquePool) Close() error { return nil }

func TestEndedSessionLeavesTheDiskWhenItsPrefixesWereEvicted(t *testing.T) {
	dense := plan.NewDense(shape)
	e := free(t, keptIn(t.TempDir(), 40))
	turns := []engine.Request{{Prompt: prompt(100, 1), Plan: dense, Session: "s"}, {Prompt: slices.Concat(prompt(100, 1), prompt(100, 3)), Plan: dense, Session: "s"}}
	for _, r := range turns {
		ask(t, e, r)
	}
	ask(t, e, engine.Request{Prompt: prompt(600, 2), Plan: dense}) // takes all pages
	if got := e.Sessions(""); len(got) != 1 || got[0].Pages != 0 {
		t.Fatalf("sessions %+v, want one that is not in the cache any more", got)
	}
	if !e.EndSession("", "s") {
		t.Fatal("there is no session")
	}
	if _, cached := ask(t, e, engine.Request{Prompt: turns[1].Prompt, Plan: dense}); cached != 0 {
		t.Errorf("%d tokens of an ended session were continued", cached)
	}
}

func TestPrefixTooLongForTheDiskLeavesTheOthersThere(t *testing.T) {
	dir, dense := t.TempDir(), plan.NewDense(shape)
	o := engine.Options{Pages: 4000, OpenSpill: func(format string, pageBytes int) (*spill.Store, error) {
		return spill.Open(dir, spill.Options{MaxBytes: 100 << 20, MaxQueued: int64(60 * pageBytes), Format: format, Model: "fake", PageBytes: pageBytes})
	}}
	e := free(t, o)
	ask(t, e, engine.Request{Prompt: prompt(2000, 1), Plan: dense}) // 32 blocks of 4 heads
	for seed := range uint64(3) {
		ask(t, e, engine.Request{Prompt: prompt(315, 2+seed), Plan: dense})
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(files(t, dir)); n != 3 {
		t.Errorf("%d prefixes are on disk, want the three that fit its queue", n)
	}
}
