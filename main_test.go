package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "123": 123, "64KiB": 64 << 10, "64k": 64 << 10, "1.5GiB": 3 << 29, "2 GB": 2 << 30, "1T": 1 << 40,
	} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1e30", "99999999T", "4GiBs"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %d, want an error", text, s)
		}
	}
}

func TestCommandLineIsConsistent(t *testing.T) {
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	parser.Stdout = &out
	parser.Exit = func(int) {}
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"plan", "--help"}, {"bench", "--help"}, {"chat", "--help"}} {
		// Help ends the process; here, where it must not, the parser goes on and
		// misses the rest of the command line.
		_, _ = parser.Parse(args)
	}
	for _, want := range []string{"--model=PATH", "--listen=", "MOASERVE_LISTEN", "uniform:50%"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help does not mention %s", want)
		}
	}
}

func TestFlagsFromEnvironmentAndFile(t *testing.T) {
	t.Setenv("MOASERVE_LISTEN", "127.0.0.1:1")
	c, err := parseConfig(t, "serve:\n  model: m.gguf\n  listen: 127.0.0.1:2\n  kv-memory: 1GiB\n", "serve", "--kv-type", "bf16")
	if err != nil {
		t.Fatal(err)
	}
	// The command line wins over the environment, the environment over the file.
	s := c.Serve
	if filepath.Base(s.Model) != "m.gguf" || s.Listen != "127.0.0.1:1" || s.KVMemory != 1<<30 || s.KVType != "bf16" {
		t.Errorf("model %q, listen %q, KV memory %d, KV type %q", s.Model, s.Listen, s.KVMemory, s.KVType)
	}
}

func TestPlanIsDrawnHeadByHead(t *testing.T) {
	shape := plan.Shape{Name: "tiny", Layers: 2, QueryHeads: 4, KVHeads: 2, HeadDim: 16}
	p := plan.NewDense(shape)
	p.Rules = append(p.Rules, plan.Rule{Beta: 0.25})
	p.Heads[1][0] = 1
	var out bytes.Buffer
	if err := showPlan(&out, p, 8192); err != nil {
		t.Fatal(err)
	}
	// 0.25 of 128 blocks is 32, the sink makes it 33: two tenths.
	for _, want := range []string{"layer   0  ##\n", "layer   1  2#\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the drawing lacks %q:\n%s", want, out.String())
		}
	}
}

func TestKVTypesOfTheFlagAreTheRuntimes(t *testing.T) {
	for name, want := range map[string]backend.KVType{"f16": backend.KVF16, "bf16": backend.KVBF16, "q8_0": backend.KVQ8_0} {
		var c cli
		parser, err := newParser(&c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse([]string{"serve", "--model", "m.gguf", "--kv-type", name}); err != nil {
			t.Fatal(err)
		}
		if o, err := c.Serve.options(); err != nil || o.KV != want {
			t.Errorf("--kv-type %s is type %d (%v), want %d", name, o.KV, err, want)
		}
	}
}

func TestChatTemplatesAreKnownByNameOrReadFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "my.jinja")
	if err := os.WriteFile(file, []byte("{{ messages }}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"": "", "vicuna": chat.Vicuna, "Llama-2": chat.Llama2, file: "{{ messages }}"} {
		if got, err := chatTemplate(name); err != nil || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	if _, err := chatTemplate("alpaca"); err == nil || !strings.Contains(err.Error(), "vicuna") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown one: %v", err)
	}
}
