package weights

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
)

// SHA256 returns the identity of a model's weights, in lower-case hexadecimal:
// the digest of the whole file, or, for a folder, of its *.safetensors files one
// after the other in the order of their names. It reads everything, which takes
// about a second for every one to two gigabytes; cancelling ctx stops it.
func SHA256(ctx context.Context, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = safetensorsFiles(path); err != nil {
			return "", err
		}
	}
	h := sha256.New()
	for _, name := range files {
		if err := hashFile(ctx, h, name); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// safetensorsFiles lists the *.safetensors files of a folder, sorted by name.
func safetensorsFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".safetensors" {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no .safetensors file", dir)
	}
	return files, nil
}

func hashFile(ctx context.Context, h hash.Hash, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	// A megabyte between looks at ctx.
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := io.CopyN(h, f, 1<<20)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}
