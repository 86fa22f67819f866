package chat

import (
	"testing"

	"github.com/moaserve/moaserve/runtime/chat/jinja"
)

// BenchmarkRender renders a conversation of five turns with three tools, JSON
// decoding included, as a server does it for each request.
func BenchmarkRender(b *testing.B) {
	golden := readGolden(b)
	in := golden.Inputs[11].input()
	for _, name := range []string{"qwen25_tools", "qwen3_thinking", "gpt_oss_like", "smollm2"} {
		b.Run(name, func(b *testing.B) {
			tmpl, err := Parse(readTemplate(b, name+".jinja"))
			if err != nil {
				b.Fatal(err)
			}
			in := in
			if name == "smollm2" {
				in = golden.Inputs[2].input()
			}
			text, err := tmpl.Render(in)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tmpl.Render(in); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(text))*float64(b.N)/b.Elapsed().Seconds()/1e6, "MB/s")
		})
	}
}

// BenchmarkParse parses a template of usual size.
func BenchmarkParse(b *testing.B) {
	source := readTemplate(b, "qwen3_thinking.jinja")
	b.ReportAllocs()
	b.SetBytes(int64(len(source)))
	for b.Loop() {
		if _, err := jinja.Parse(source); err != nil {
			b.Fatal(err)
		}
	}
}
