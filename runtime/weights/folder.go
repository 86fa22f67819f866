package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Folder is a model as Hugging Face stores it: safetensors, in one file or in
// shards, and the JSON files beside them.
type Folder struct {
	// The files beside the weights, as they are; nil when there is none.
	Config           []byte // config.json; always there
	Tokenizer        []byte // tokenizer.json
	TokenizerConfig  []byte // tokenizer_config.json
	ChatTemplate     []byte // chat_template.jinja
	GenerationConfig []byte // generation_config.json

	shards []*Safetensors
	owner  map[string]*Safetensors
	names  []string
}

var _ Source = (*Folder)(nil)

const (
	singleFile = "model.safetensors"
	indexFile  = "model.safetensors.index.json"
	configFile = "config.json"
)

// Sizes up to which the files beside the weights are read: several times the
// largest in use (tokenizer.json reaches 33 MB).
const (
	maxIndexFile      = 32 << 20
	maxConfigFile     = 1 << 20
	maxTokenizerFile  = 128 << 20
	maxTokenizerExtra = 16 << 20
)

// maxShards bounds the files that an index may name: the largest published
// models of the family come in fewer than 200.
const maxShards = 4096

// ggufIn names a GGUF file in a folder, which may be what was meant, for an error.
func ggufIn(dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "*.gguf"))
	if err != nil || len(files) == 0 {
		return ""
	}
	return fmt.Sprintf(" (it holds %s: name the file)", filepath.Base(files[0]))
}

// OpenFolder opens the model in the folder dir: model.safetensors, or the shards
// that model.safetensors.index.json lists, and config.json. The other files are
// read when they are there.
func OpenFolder(dir string) (*Folder, error) {
	f := &Folder{owner: make(map[string]*Safetensors)}
	for _, x := range []struct {
		name  string
		limit int64
		into  *[]byte
	}{
		{configFile, maxConfigFile, &f.Config},
		{"tokenizer.json", maxTokenizerFile, &f.Tokenizer},
		{"tokenizer_config.json", maxTokenizerExtra, &f.TokenizerConfig},
		{"chat_template.jinja", maxTokenizerExtra, &f.ChatTemplate},
		{"generation_config.json", maxConfigFile, &f.GenerationConfig},
	} {
		data, err := readSmall(filepath.Join(dir, x.name), x.limit)
		if x.name == configFile && errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is no Hugging Face folder%s: %w", dir, ggufIn(dir), err)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		*x.into = data
	}
	err := f.openShards(dir)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openShards opens the weights: the index decides when there is one.
func (f *Folder) openShards(dir string) error {
	path := filepath.Join(dir, indexFile)
	data, err := readSmall(path, maxIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return f.openShard(filepath.Join(dir, singleFile))
	}
	if err != nil {
		return err
	}
	index, err := parseIndex(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, file := range slices.Compact(slices.Sorted(maps.Values(index))) {
		if err := f.openShard(filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(index)) {
		shard, ok := f.owner[name]
		if !ok || filepath.Base(shard.file.path) != index[name] {
			return fmt.Errorf("%s: tensor %q is not in %s", path, name, index[name])
		}
	}
	return nil
}

// parseIndex returns the shard of every tensor. Shards lie in the folder itself.
func parseIndex(data []byte) (map[string]string, error) {
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	if len(index.WeightMap) == 0 {
		return nil, errors.New("weight_map is empty")
	}
	files := make(map[string]bool)
	for name, file := range index.WeightMap {
		if strings.ContainsAny(file, `/\`) || !filepath.IsLocal(file) || filepath.Ext(file) != ".safetensors" {
			return nil, fmt.Errorf("tensor %q: %q is not the name of a .safetensors file in the folder", name, file)
		}
		if files[file] = true; len(files) > maxShards {
			return nil, fmt.Errorf("more than %d shards", maxShards)
		}
	}
	return index.WeightMap, nil
}

func (f *Folder) openShard(path string) error {
	shard, err := OpenSafetensors(path)
	if err != nil {
		return err
	}
	f.shards = append(f.shards, shard)
	for _, name := range shard.Names() {
		if other, taken := f.owner[name]; taken {
			return fmt.Errorf("%s: tensor %q is also in %s", path, name, other.file.path)
		}
		f.owner[name] = shard
		f.names = append(f.names, name)
	}
	return nil
}

// Tensor implements Source. The Data need not be aligned to its elements.
func (f *Folder) Tensor(name string) (Tensor, bool) {
	shard, ok := f.owner[name]
	if !ok {
		return Tensor{}, false
	}
	return shard.Tensor(name)
}

// Names implements Source: shard by shard in the order of their names.
func (f *Folder) Names() []string { return slices.Clone(f.names) }

// Close implements Source. It may be called more than once.
func (f *Folder) Close() error {
	var errs []error
	for _, s := range f.shards {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// readSmall reads a whole regular file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	// One byte more than allowed, whatever Stat said.
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, nil
}
