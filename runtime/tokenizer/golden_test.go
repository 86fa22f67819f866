package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moaserve/moaserve/internal/testmodel"
	"github.com/moaserve/moaserve/runtime/weights"
)

// The golden files come from testdata/gen_golden.py, which says what they hold.

func TestIdsEqualReference(t *testing.T) {
	for _, name := range familyNames(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compareGolden(t, family(t, name), filepath.Join("testdata", name+".golden"))
		})
	}
}

// TestIdsEqualReferenceForSmolLM2 reads the real vocabulary from the model file.
func TestIdsEqualReferenceForSmolLM2(t *testing.T) {
	compareGolden(t, smolLM2(t), filepath.Join("testdata", "smollm2.golden"))
}

// TestIdsEqualReferenceForOtherVocabularies reads tokenizer.json and golden, as
// gen_golden.py --json writes it, from each folder that MOASERVE_TEST_TOKENIZERS
// lists.
func TestIdsEqualReferenceForOtherVocabularies(t *testing.T) {
	folders := filepath.SplitList(os.Getenv("MOASERVE_TEST_TOKENIZERS"))
	if len(folders) == 0 {
		t.Skip("MOASERVE_TEST_TOKENIZERS is not set")
	}
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			compareGolden(t, fromFolder(t, folder), filepath.Join(folder, "golden"))
		})
	}
}

func compareGolden(t *testing.T, tok *Tokenizer, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	texts := corpus(t)
	if len(data) != 4*len(texts) {
		t.Fatalf("%s has %d bytes for %d texts", path, len(data), len(texts))
	}
	bad, decode := 0, !strings.HasSuffix(path, "-added.golden")
	for i, text := range texts {
		if got, want := goldenHash(tok, text, decode), binary.LittleEndian.Uint32(data[4*i:]); got != want {
			if bad++; bad <= 10 {
				ids := tok.Encode(text, EncodeOptions{AddSpecial: true, ParseSpecial: true})
				t.Errorf("text %d %.200q differs from the reference: %q", i, text, spell(tok, ids))
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d texts differ", bad, len(texts))
	}
}

// goldenHash computes what golden files hold of a text.
func goldenHash(tok *Tokenizer, text string, decode bool) uint32 {
	h := fnv.New32a()
	writeIDs := func(ids []int32) {
		for _, id := range append(ids, -1) {
			_ = binary.Write(h, binary.LittleEndian, id)
		}
	}
	ids := tok.Encode(text, EncodeOptions{AddSpecial: true, ParseSpecial: true})
	writeIDs(slices.Clone(ids))
	writeIDs(tok.Encode(text, EncodeOptions{}))
	if decode {
		_, _ = io.WriteString(h, tok.Decode(ids, false)+"\xff"+tok.Decode(ids, true))
	}
	return h.Sum32()
}

func spell(tok *Tokenizer, ids []int32) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = tok.Token(id)
	}
	return out
}

// corpus returns the texts of the golden files.
var corpusOnce = sync.OnceValues(func() (texts []string, err error) {
	err = readGzipJSON("corpus.json.gz", &texts)
	return texts, err
})

func corpus(t testing.TB) []string {
	t.Helper()
	texts, err := corpusOnce()
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) < 3000 {
		t.Fatalf("%d texts", len(texts))
	}
	return texts
}

func readGzipJSON(name string, into any) error {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		return err
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if data, err = io.ReadAll(r); err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// variant is a family that shares most of its tokenizer.json with another.
type variant struct {
	Name   string                     `json:"name"`
	Base   string                     `json:"base"`
	Fields map[string]json.RawMessage `json:"fields"`
}

var baseFamilies = []string{"smollm", "llama3", "qwen2", "spm"}

var variantsOnce = sync.OnceValues(func() (variants []variant, err error) {
	err = readGzipJSON("variants.json.gz", &variants)
	return variants, err
})

func familyNames(t testing.TB) []string {
	t.Helper()
	names := slices.Clone(baseFamilies)
	variants, err := variantsOnce()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variants {
		names = append(names, v.Name)
	}
	return names
}

// familyFields returns the tokenizer.json of a family, one entry a field.
func familyFields(t testing.TB, name string) map[string]json.RawMessage {
	t.Helper()
	changed := map[string]json.RawMessage{}
	variants, err := variantsOnce()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variants {
		if v.Name == name {
			name, changed = v.Base, v.Fields
		}
	}
	var fields map[string]json.RawMessage
	if err := readGzipJSON(name+".json.gz", &fields); err != nil {
		t.Fatal(err)
	}
	maps.Copy(fields, changed)
	return fields
}

func familyJSON(t testing.TB, name string) []byte {
	t.Helper()
	data, err := json.Marshal(familyFields(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func family(t testing.TB, name string) *Tokenizer {
	t.Helper()
	tok, err := FromJSON(familyJSON(t, name), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func fromFolder(t testing.TB, folder string) *Tokenizer {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(folder, "tokenizer_config.json"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	tok, err := FromJSON(data, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// smolLM2Metadata returns the metadata of the real model, which is not part of
// the repository.
func smolLM2Metadata(t testing.TB) weights.Metadata {
	t.Helper()
	path := testmodel.Path(t)
	g, err := weights.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	if name, _ := g.Metadata().String("general.basename"); name != "smollm2" {
		t.Skipf("%s is %q, not smollm2", path, name)
	}
	return g.Metadata()
}

func smolLM2(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := FromGGUF(smolLM2Metadata(t))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
