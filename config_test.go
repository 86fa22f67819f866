package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// parseConfig parses a command line with a configuration file of that text.
func parseConfig(t *testing.T, text string, args ...string) (*cli, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(append(args, "--config", path))
	return &c, err
}

func TestConfigurationNamesFlagsInAnyNesting(t *testing.T) {
	for _, text := range []string{
		"serve:\n  model: m.gguf\n  max-sequences: 3\n  drain: 5s\n",
		"serve-model: m.gguf\nserve-max-sequences: 3\nserve-drain: 5s\n",
		"serve:\n  model: m.gguf\n  max:\n    sequences: 3\n  drain: 5s\nchat:\n  system: Be brief.\n",
	} {
		c, err := parseConfig(t, text, "serve")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if s := c.Serve; filepath.Base(s.Model) != "m.gguf" || s.MaxSequences != 3 || s.Drain != 5*time.Second {
			t.Errorf("%s: model %q, %d sequences, drain %v", text, s.Model, s.MaxSequences, s.Drain)
		}
	}
	if _, err := parseConfig(t, "", "serve", "--model", "m.gguf"); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestConfigurationThatWouldBeIgnoredIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"api-keys: [secret]\n":                "put it under serve",
		"serve:\n  api_keys: [secret]\n":      `the flag is "serve-api-keys"`,
		"serve:\n  drian: 5s\n":               `"serve-drian", and there is no such flag`,
		"serve:\n  drain: 5\n":                "write 5s for seconds",
		"- serve\n":                           "no YAML map",
		"serve:\n  max-sequences: [1, two]\n": "max-sequences",
	} {
		if _, err := parseConfig(t, text, "serve", "--model", "m.gguf"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		}
	}
}
