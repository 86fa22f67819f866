package weights

import (
	"fmt"
	"os"
)

// Open opens a model's weights: a *Folder when path is a directory, a *GGUF
// otherwise.
func Open(path string) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	if info.IsDir() {
		f, err := OpenFolder(path)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	g, err := OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	return g, nil
}
