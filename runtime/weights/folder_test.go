package weights_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/runtime/weights"
)

func makeFolder(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const index2 = `{"metadata":{"total_size":32},"weight_map":{
	"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"model-00001-of-00002.safetensors"}}`

func shardedFiles(t testing.TB) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"config.json":                      []byte(`{"model_type":"llama"}`),
		"tokenizer.json":                   []byte(`{}`),
		"chat_template.jinja":              []byte(`{{ messages }}`),
		"model.safetensors.index.json":     []byte(index2),
		"model-00001-of-00002.safetensors": safetensorsFile(t, safetensor(t, "a", weights.F32, 2), safetensor(t, "c", weights.F16, 2)),
		"model-00002-of-00002.safetensors": safetensorsFile(t, safetensor(t, "b", weights.BF16, 4)),
	}
}

func TestAShardedFolderIsOneSource(t *testing.T) {
	dir := makeFolder(t, shardedFiles(t))
	src, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	f, ok := src.(*weights.Folder)
	if !ok {
		t.Fatalf("a folder opened as %T", src)
	}
	if diff := cmp.Diff([]string{"a", "c", "b"}, f.Names()); diff != "" {
		t.Error(diff)
	}
	for _, want := range []weights.Tensor{
		safetensor(t, "a", weights.F32, 2), safetensor(t, "b", weights.BF16, 4), safetensor(t, "c", weights.F16, 2),
	} {
		got, _ := f.Tensor(want.Name)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if string(f.Config) != `{"model_type":"llama"}` || string(f.Tokenizer) != `{}` || string(f.ChatTemplate) != `{{ messages }}` {
		t.Errorf("the files beside the weights are %q, %q, %q", f.Config, f.Tokenizer, f.ChatTemplate)
	}
	if f.TokenizerConfig != nil || f.GenerationConfig != nil {
		t.Error("files that are not there have content")
	}
}

func TestASingleFileFolderNeedsNoIndex(t *testing.T) {
	f, err := weights.OpenFolder(makeFolder(t, map[string][]byte{
		"config.json": []byte(`{}`), "model.safetensors": safetensorsFile(t, safetensor(t, "a", weights.F32, 2)),
	}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a"}, f.Names()); diff != "" {
		t.Error(diff)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestBadFoldersAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(files map[string][]byte)
		want   string
	}{
		{"no config", func(f map[string][]byte) { delete(f, "config.json") }, "config.json"},
		{"no shard", func(f map[string][]byte) { delete(f, "model-00002-of-00002.safetensors") }, "model-00002-of-00002.safetensors"},
		{"no weights", func(f map[string][]byte) { delete(f, "model.safetensors.index.json") }, "model.safetensors"},
		{"an empty index", func(f map[string][]byte) { f["model.safetensors.index.json"] = []byte(`{}`) }, "weight_map is empty"},
		{"a broken index", func(f map[string][]byte) { f["model.safetensors.index.json"] = []byte(`{`) }, "index.json"},
		{"a shard elsewhere", func(f map[string][]byte) {
			f["model.safetensors.index.json"] = []byte(`{"weight_map":{"a":"../../x.safetensors"}}`)
		}, "not the name of a .safetensors file in the folder"},
		{"a shard that is no safetensors", func(f map[string][]byte) {
			f["model.safetensors.index.json"] = []byte(`{"weight_map":{"a":"config.json"}}`)
		}, "not the name"},
		{"a tensor in the wrong shard", func(f map[string][]byte) {
			f["model.safetensors.index.json"] = []byte(strings.Replace(index2, `"a":"model-00001`, `"a":"model-00002`, 1))
		}, `tensor "a" is not in model-00002-of-00002.safetensors`},
		{"a tensor in two shards", func(f map[string][]byte) {
			f["model-00002-of-00002.safetensors"] = f["model-00001-of-00002.safetensors"]
		}, `tensor "a" is also in`},
		{"a config of megabytes", func(f map[string][]byte) { f["config.json"] = make([]byte, 1<<20+1) }, "larger than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := shardedFiles(t)
			c.damage(files)
			_, err := weights.Open(makeFolder(t, files))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestTheHashOfAModelIsTheHashOfItsWeights(t *testing.T) {
	files := shardedFiles(t)
	dir := makeFolder(t, files)
	first, second := files["model-00001-of-00002.safetensors"], files["model-00002-of-00002.safetensors"]
	for path, content := range map[string][]byte{
		dir: append(append([]byte(nil), first...), second...),
		filepath.Join(dir, "model-00001-of-00002.safetensors"): first,
	} {
		sum := sha256.Sum256(content)
		got, err := weights.SHA256(t.Context(), path)
		if err != nil || got != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: got %s, %v", path, got, err)
		}
	}
	if _, err := weights.SHA256(t.Context(), t.TempDir()); err == nil {
		t.Error("an empty folder has a hash")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := weights.SHA256(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled hash returned %v", err)
	}
}

func TestAFolderWithAGGUFFileSaysSo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m.Q4_0.gguf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := weights.OpenFolder(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "it holds m.Q4_0.gguf: name the file") {
		t.Errorf("got %v", err)
	}
}
