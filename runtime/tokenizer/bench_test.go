package tokenizer

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// proseText is English prose from the Go distribution and codeText Go code: the
// text of the toolchain that runs the benchmark, so that none is kept here.
func proseText(b *testing.B) string { return goTree(b, "doc/*.html", "*.md", "src/*/doc.go") }

func codeText(b *testing.B) string {
	return goTree(b, "src/net/http/*.go", "src/go/types/*.go", "src/encoding/json/*.go")
}

// goTree joins files of the Go distribution, up to 1 MiB.
func goTree(b *testing.B, patterns ...string) string {
	b.Helper()
	const size = 1 << 20
	var text strings.Builder
	for _, p := range patterns {
		files, err := filepath.Glob(filepath.Join(runtime.GOROOT(), p)) //nolint:staticcheck // the test runs where it was built
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil && text.Len() < size {
				text.Write(data)
			}
		}
	}
	if text.Len() == 0 {
		b.Skip("no Go source tree")
	}
	return text.String()[:min(size, text.Len())]
}

func benchmarkEncode(b *testing.B, tok *Tokenizer, text string) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	tokens := 0
	for b.Loop() {
		tokens = len(tok.Encode(text, EncodeOptions{}))
	}
	b.ReportMetric(float64(len(text))/float64(tokens), "bytes/token")
	b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkEncode(b *testing.B) {
	texts := []struct{ name, text string }{
		{"prose", proseText(b)},
		{"code", codeText(b)},
		{"mixed", strings.Join(corpus(b), "\n")},
		{"cjk", strings.Repeat("人工智能正在改变世界，我们需要更多的数据。吾輩は猫である。名前はまだ無い。다람쥐 헌 쳇바퀴에 타고파. ", 4000)},
		{"one letter", strings.Repeat("a", 1<<20)},
		{"spaces", strings.Repeat(" ", 1<<20)},
	}
	run := func(name string, tok func(*testing.B) *Tokenizer) {
		b.Run(name, func(b *testing.B) {
			t := tok(b)
			for _, x := range texts {
				b.Run(x.name, func(b *testing.B) { benchmarkEncode(b, t, x.text) })
			}
		})
	}
	run("smollm2", func(b *testing.B) *Tokenizer { return smolLM2(b) })
	for _, folder := range filepath.SplitList(os.Getenv("MOASERVE_TEST_TOKENIZERS")) {
		run(filepath.Base(filepath.Dir(filepath.Dir(folder))), func(b *testing.B) *Tokenizer { return fromFolder(b, folder) })
	}
}

// BenchmarkEncodeWithoutCache takes texts that the cache has not seen.
func BenchmarkEncodeWithoutCache(b *testing.B) {
	tok := smolLM2(b)
	text := proseText(b)
	b.SetBytes(int64(len(text)))
	model := *tok.model.(*byteLevel)
	for b.Loop() {
		model.cache = newPieceCache()
		model.encode(nil, text, true)
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := smolLM2(b)
	text := proseText(b)
	ids := tok.Encode(text, EncodeOptions{})
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Decode(ids, true)
	}
}

func BenchmarkLoad(b *testing.B) {
	b.Run("smollm2 GGUF", func(b *testing.B) {
		m := smolLM2Metadata(b)
		for b.Loop() {
			if _, err := FromGGUF(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, folder := range filepath.SplitList(os.Getenv("MOASERVE_TEST_TOKENIZERS")) {
		data, err := os.ReadFile(filepath.Join(folder, "tokenizer.json"))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(filepath.Base(filepath.Dir(filepath.Dir(folder))), func(b *testing.B) {
			for b.Loop() {
				if _, err := FromJSON(data, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
