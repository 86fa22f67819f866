// Package testmodel finds the real model that tests run on: SmolLM2-135M-Instruct
// in Q4_1, which is not part of the repository.
package testmodel

import (
	"os"
	"path/filepath"
	"testing"
)

// Path returns the model's path: that of the environment variable
// MOASERVE_TEST_MODEL, else where `moaserve models pull` puts it. It skips the
// test when there is no such file.
func Path(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("MOASERVE_TEST_MODEL")
	if path == "" {
		path = filepath.Join(root(tb), "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
	}
	if _, err := os.Stat(path); err != nil {
		tb.Skipf("no model (make test fetches it): %v", err)
	}
	return path
}

// root finds the module's folder: tests run in that of their package.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("no go.mod in this folder or above it")
		}
		dir = parent
	}
}
