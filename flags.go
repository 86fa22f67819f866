package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/synthetic"
)

// modelFlags are the flags of every command that opens a model.
type modelFlags struct {
	Model        string `help:"Model: a GGUF file, a Hugging Face folder with safetensors, or synthetic:NAME, which has the shape of a published model and random weights: ${synthetic}." type:"model" placeholder:"PATH"`
	Backend      string `help:"Where to compute: ${enum}." enum:"auto,cpu,cuda" default:"auto"`
	Threads      int    `help:"CPU threads; 0 means one a core." default:"0"`
	Context      int    `help:"Longest prompt and answer together, in tokens; 0 means the model's own." default:"0"`
	KVMemory     size   `help:"Memory for the KV cache, for example 4GiB; 0 chooses: 16 full contexts, at most a quarter of the memory, on the CUDA backend nine tenths of what is free." default:"0" placeholder:"SIZE"`
	KVType       string `help:"Element type of the KV cache: ${enum}. q8_0 takes 34/64 of the memory of f16, fp8 (e4m3) a little over half. The CPU backend has f16, bf16 and q8_0; the CUDA backend has bf16, which f16 stands for, and fp8." enum:"f16,bf16,q8_0,fp8" default:"f16"`
	Weights      string `help:"Form of the projections on the CUDA backend: ${enum}. fp8 (e4m3, a scale for each output) takes half the memory and the traffic of bf16, which is what auto means there (for synthetic:llama-3-70b it means fp8). The CPU backend keeps weights as they are stored." enum:"auto,bf16,fp8" default:"auto"`
	Activations  string `help:"Precision of the inputs of products with quantised weights: int8, or int16, nearer to float32. On the CPU int8 is as llama.cpp, int16 takes up to twice the arithmetic; with --weights fp8 on the CUDA backend int8 means e4m3 in steps of more than 16 tokens, int16 means bf16 and makes prompts take 1.8 times as long." enum:"int8,int16" default:"int8"`
	MaxSequences int    `help:"Sequences that run at a time; 0 means 64, on the CUDA backend 128." default:"0"`
	StepTokens   int    `help:"New tokens in one step of the engine, prompts cut into chunks accordingly; 0 means 512, on the CUDA backend 4096." default:"0"`
	PrefixCache  bool   `help:"Keep the prefixes of prompts and answers as long as pages are free, so that follow-up questions start at once." default:"true" negatable:""`
	ChatTemplate string `help:"What to use instead of the model's chat template: a Jinja file, or chatml, llama-2 or vicuna." placeholder:"FILE|NAME"`
}

// Validate refuses a command line without a model. It is a command's own, unless that
// has another one.
func (f *modelFlags) Validate() error {
	if f.Model == "" {
		return errors.New("missing flags: --model=PATH")
	}
	return nil
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
	case "fp8":
		o.KV = backend.KVFP8
	}
	switch f.Weights {
	case "bf16":
		o.Weights = backend.WeightsBF16
	case "fp8":
		o.Weights = backend.WeightsFP8
	}
	if f.Activations == "int16" {
		o.Activations = backend.Int16
	}
	if f.Threads < 0 || f.Context < 0 {
		return o, fmt.Errorf("--threads %d and --context %d: neither may be negative", f.Threads, f.Context)
	}
	var err error
	o.ChatTemplate, err = chatTemplate(f.ChatTemplate)
	return o, err
}

// chatTemplate returns the Jinja source that --chat-template names: a known one, or a
// file. It is empty for none.
func chatTemplate(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if known, ok := chat.Known(name); ok {
		return known, nil
	}
	source, err := os.ReadFile(kong.ExpandPath(name))
	if err != nil {
		return "", fmt.Errorf("the chat template is neither chatml, llama-2, vicuna nor a file that can be read: %w", err)
	}
	return string(source), nil
}

// modelMapper decodes flags of the type "model": paths, which are made absolute and
// whose ~ is expanded as those of the type "path" are, and names of synthetic models,
// which are left alone.
func modelMapper(ctx *kong.DecodeContext, target reflect.Value) error {
	var value string
	if err := ctx.Scan.PopValueInto("path", &value); err != nil {
		return err
	}
	if !synthetic.Is(value) {
		value = kong.ExpandPath(value)
	}
	target.SetString(value)
	return nil
}

// syntheticNames lists the synthetic models for help texts.
func syntheticNames() string { return strings.Join(synthetic.Names(), ", ") }

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
