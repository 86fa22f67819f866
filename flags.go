package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/backend"
)

// modelFlags are the flags of every command that opens a model.
type modelFlags struct {
	Model        string `help:"Model: a GGUF file, or a Hugging Face folder with safetensors." required:"" type:"path" placeholder:"PATH"`
	Backend      string `help:"Where to compute: ${enum}." enum:"auto,cpu,cuda" default:"auto"`
	Threads      int    `help:"CPU threads; 0 means one a core." default:"0"`
	Context      int    `help:"Longest prompt and answer together, in tokens; 0 means the model's own." default:"0"`
	KVMemory     size   `help:"Memory for the KV cache, for example 4GiB; 0 chooses: 16 full contexts, at most a quarter of the memory." default:"0" placeholder:"SIZE"`
	KVType       string `help:"Element type of the KV cache: ${enum}. q8_0 takes 34/64 of the memory of the others. The CUDA backend stores bf16." enum:"f16,bf16,q8_0" default:"f16"`
	Activations  string `help:"Precision of the inputs of quantised products on the CPU: int8 as llama.cpp, or int16, nearer to float32 at up to twice the arithmetic." enum:"int8,int16" default:"int8"`
	MaxSequences int    `help:"Sequences that run at a time." default:"64"`
	StepTokens   int    `help:"New tokens in one step of the engine, prompts cut into chunks accordingly." default:"512"`
	PrefixCache  bool   `help:"Keep the prefixes of prompts and answers as long as pages are free, so that follow-up questions start at once." default:"true" negatable:""`
	ChatTemplate string `help:"Jinja file to use instead of the model's chat template." type:"existingfile" placeholder:"FILE"`
}

// options returns the runtime's options, plans aside.
func (f *modelFlags) options() (runtime.Options, error) {
	o := runtime.Options{
		Backend: f.Backend, Threads: f.Threads, Context: f.Context, KVBytes: int64(f.KVMemory),
		MaxSequences: f.MaxSequences, StepTokens: f.StepTokens, NoPrefixCache: !f.PrefixCache,
	}
	switch f.KVType {
	case "bf16":
		o.KV = backend.KVBF16
	case "q8_0":
		o.KV = backend.KVQ8_0
	}
	if f.Activations == "int16" {
		o.Activations = backend.Int16
	}
	if f.ChatTemplate != "" {
		src, err := os.ReadFile(f.ChatTemplate)
		if err != nil {
			return o, fmt.Errorf("reading the chat template: %w", err)
		}
		o.ChatTemplate = string(src)
	}
	return o, nil
}

// size is a number of bytes, written 123, 64KiB, 512MiB or 4GiB (KB, MB, GB and
// K, M, G mean the same powers of 1024).
type size int64

// UnmarshalText parses a size.
func (s *size) UnmarshalText(text []byte) error {
	t := strings.ToLower(strings.TrimSpace(string(text)))
	t = strings.TrimSuffix(strings.TrimSuffix(t, "b"), "i")
	shift := 0
	for suffix, n := range map[string]int{"k": 10, "m": 20, "g": 30, "t": 40} {
		if rest, ok := strings.CutSuffix(t, suffix); ok {
			t, shift = strings.TrimSpace(rest), n
			break
		}
	}
	n, err := strconv.ParseFloat(t, 64)
	if err != nil || n < 0 || n > float64(int64(1)<<(62-shift)) {
		return fmt.Errorf("%q is no size: write for example 512MiB or 4GiB", text)
	}
	*s = size(n * float64(int64(1)<<shift))
	return nil
}
