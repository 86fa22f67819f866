// Package synthetic makes models that have the shape of published ones and random
// weights, for benchmarks where no checkpoint is: time and memory depend on the
// shape alone. They answer with nonsense. The weights are a function of a seed (see
// weights.Generated), so that every machine and every device has the same ones.
package synthetic

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

// Prefix begins the path of a synthetic model: synthetic:llama-3-8b.
const Prefix = "synthetic:"

// MaxContext is the longest context that may be asked for. Random weights do not
// lose their minds beyond the context they were trained with.
const MaxContext = 128 << 10

// seed of all weights. Another one would be other models, with another SHA256.
const seed = 1

// Model is a synthetic model. Close its Source when it is no longer used.
type Model struct {
	*model.Model
	Source    *Source
	Tokenizer *tokenizer.Tokenizer
	// ChatTemplate is the Jinja source.
	ChatTemplate string
	// SHA256 identifies the weights as the hash of a file does: hexadecimal, another
	// one for other weights.
	SHA256 string
	// FP8 tells that a GPU keeps the projections in fp8 unless told otherwise, for lack of
	// room.
	FP8 bool
}

// Is reports whether a path names a synthetic model, be it one that there is.
func Is(path string) bool { return strings.HasPrefix(path, Prefix) }

// Open makes the model of a path such as synthetic:llama-3-8b. context raises its
// context above the published one, up to MaxContext; lower values change nothing. It
// takes a moment and little memory: the weights are not made yet.
func Open(path string, context int) (*Model, error) {
	name := strings.TrimPrefix(path, Prefix)
	s, ok := shapes[name]
	if !ok {
		return nil, fmt.Errorf("there is no synthetic model %q; there are %s", name, Prefix+strings.Join(Names(), ", "+Prefix))
	}
	config, err := s.config()
	if err != nil {
		return nil, err
	}
	m := &Model{Source: newSource(s, seed), ChatTemplate: chatTemplate, SHA256: sum(name), FP8: s.FP8}
	if m.Model, err = model.FromConfig(config, m.Source); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.Name = name
	m.Context = max(m.Context, min(context, MaxContext))
	if m.Tokenizer, err = newTokenizer(s.Vocab); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// sum stands for the hash of a weights file. The version changes whenever a weight
// does.
func sum(name string) string {
	const version = 1
	h := sha256.Sum256(fmt.Appendf(nil, "synthetic weights, version %d, seed %d: %s", version, seed, name))
	return hex.EncodeToString(h[:])
}
