package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/weights"
)

// metadata writes a family's tokenizer.json as a GGUF converter would.
func metadata(t testing.TB, name, model, pre string) weights.Metadata {
	t.Helper()
	var f tokenizerFile
	if err := json.Unmarshal(familyJSON(t, name), &f); err != nil {
		t.Fatal(err)
	}
	size := len(f.Model.Vocab)
	for _, a := range f.AddedTokens {
		size = max(size, int(a.ID)+1)
	}
	tokens, types := make([]string, size), make([]int64, size)
	for _, e := range f.Model.Vocab {
		tokens[e.id], types[e.id] = e.name, ggufNormal
		if model == "llama" && isByteToken(e.name) {
			types[e.id] = ggufByte
		}
	}
	for _, a := range f.AddedTokens {
		tokens[a.ID], types[a.ID] = a.Content, ggufUserDefined
		if a.Special {
			types[a.ID] = ggufControl
		}
	}
	m := weights.Metadata{
		ggufPrefix + "model":      model,
		ggufPrefix + "tokens":     tokens,
		ggufPrefix + "token_type": types,
	}
	if model == "llama" {
		scores := make([]float64, size)
		for i := range scores {
			scores[i] = -float64(i)
		}
		m[ggufPrefix+"scores"] = scores
		m[ggufPrefix+"bos_token_id"] = uint64(1)
		m[ggufPrefix+"eos_token_id"] = uint64(2)
		return m
	}
	merges := make([]string, len(f.Model.Merges))
	for i, p := range f.Model.Merges {
		merges[i] = p.left + " " + p.right
	}
	m[ggufPrefix+"merges"] = merges
	m[ggufPrefix+"pre"] = pre
	return m
}

func TestGGUFGivesTheSameIdsAsJSON(t *testing.T) {
	tests := []struct{ family, model, pre string }{
		{"smollm", "gpt2", "smollm"},
		{"qwen2", "gpt2", "qwen2"},
		{"llama3", "gpt2", "llama-bpe"},
		{"spm", "llama", ""},
	}
	for _, test := range tests {
		t.Run(test.family, func(t *testing.T) {
			fromJSON := family(t, test.family)
			m := metadata(t, test.family, test.model, test.pre)
			if bos, ok := fromJSON.BOS(); ok {
				m[ggufPrefix+"bos_token_id"] = uint64(bos)
			}
			fromGGUF, err := FromGGUF(m)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range corpus(t) {
				if test.family == "llama3" && (strings.Contains(text, "<mask>") || strings.Contains(text, "<|user|>") || strings.Contains(text, "wordy")) {
					continue // their flags cannot be written in GGUF
				}
				for _, o := range []EncodeOptions{{}, {AddSpecial: true, ParseSpecial: true}} {
					want, got := fromJSON.Encode(text, o), fromGGUF.Encode(text, o)
					if !slices.Equal(got, want) {
						t.Fatalf("%q: %q, want %q", text, spell(fromGGUF, got), spell(fromJSON, want))
					}
					if got, want := fromGGUF.Decode(got, true), fromJSON.Decode(want, true); got != want {
						t.Fatalf("%q decodes to %q, want %q", text, got, want)
					}
				}
			}
		})
	}
}

func TestSmolLM2(t *testing.T) {
	tok := smolLM2(t)
	if got := tok.VocabSize(); got != 49152 {
		t.Errorf("VocabSize() = %d", got)
	}
	if bos, ok := tok.BOS(); !ok || tok.Token(bos) != "<|im_start|>" {
		t.Errorf("BOS() = %d, %v", bos, ok)
	}
	if eos, ok := tok.EOS(); !ok || tok.Token(eos) != "<|im_end|>" {
		t.Errorf("EOS() = %d, %v", eos, ok)
	}
	if got, want := spell(tok, tok.EndOfGeneration()), []string{"<|endoftext|>", "<|im_end|>"}; !slices.Equal(got, want) {
		t.Errorf("EndOfGeneration() = %q, want %q", got, want)
	}
	ids := tok.Encode("<|im_start|>user\nHi 42!<|im_end|>", EncodeOptions{AddSpecial: true, ParseSpecial: true})
	if got, want := spell(tok, ids), []string{"<|im_start|>", "user", "Ċ", "Hi", "Ġ", "4", "2", "!", "<|im_end|>"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := string(tok.Bytes(ids[4])); got != " " {
		t.Errorf("Bytes(Ġ) = %q", got)
	}
}

func TestSettingsNameTheSpecialTokens(t *testing.T) {
	name := func(tok *Tokenizer, id int32, ok bool) string {
		if !ok {
			return "none"
		}
		return tok.Token(id)
	}
	tests := []struct {
		what, family, config, generation string
		bos, eos                         string
		framed                           []string // the tokens around an empty text
		stops                            []string
	}{
		{what: "nothing", family: "smollm", bos: "none", eos: "none", stops: []string{"<|endoftext|>", "<|im_end|>"}},
		{
			what: "the template alone", family: "llama3", bos: "<|begin_of_text|>", eos: "none",
			framed: []string{"<|begin_of_text|>"}, stops: []string{"<|eot_id|>"},
		},
		{
			what: "strings", family: "smollm", config: `{"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": true}`,
			bos: "<|im_start|>", eos: "<|im_end|>", stops: []string{"<|endoftext|>", "<|im_end|>"},
		},
		{
			what: "objects and null", family: "qwen2", config: `{"bos_token": null, "eos_token": {"content": "<|im_end|>", "special": true}}`,
			bos: "none", eos: "<|im_end|>", stops: []string{"<|endoftext|>", "<|im_end|>"},
		},
		{
			what: "a Llama class frames by itself", family: "spm",
			config: `{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false, "add_eos_token": true}`,
			bos:    "<s>", eos: "</s>", framed: []string{"</s>"}, stops: []string{"</s>"},
		},
		{
			what: "a list of ids", family: "spm", config: `{"eos_token": "</s>"}`, generation: `{"eos_token_id": [2, 300]}`,
			bos: "<s>", eos: "</s>", framed: []string{"<s>"}, stops: []string{"</s>", family(t, "spm").Token(300)},
		},
		{
			what: "one id", family: "spm", generation: `{"eos_token_id": 2}`,
			bos: "<s>", eos: "</s>", framed: []string{"<s>"}, stops: []string{"</s>"},
		},
	}
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			tok, err := FromJSON(familyJSON(t, test.family), []byte(test.config), []byte(test.generation))
			if err != nil {
				t.Fatal(err)
			}
			bos, ok := tok.BOS()
			if got := name(tok, bos, ok); got != test.bos {
				t.Errorf("BOS is %s, want %s", got, test.bos)
			}
			eos, ok := tok.EOS()
			if got := name(tok, eos, ok); got != test.eos {
				t.Errorf("EOS is %s, want %s", got, test.eos)
			}
			if got := spell(tok, tok.Encode("", EncodeOptions{AddSpecial: true})); !slices.Equal(got, test.framed) {
				t.Errorf("an empty text is %q, want %q", got, test.framed)
			}
			if got := spell(tok, tok.EndOfGeneration()); !slices.Equal(got, test.stops) {
				t.Errorf("generation ends at %q, want %q", got, test.stops)
			}
		})
	}
}

func TestUnknownIdsHaveNothing(t *testing.T) {
	tok := family(t, "spm")
	for _, id := range []int32{-1, int32(tok.VocabSize()), 1 << 30} {
		if tok.Bytes(id) != nil || tok.Token(id) != "" || tok.IsSpecial(id) || tok.Decode([]int32{id}, false) != "" {
			t.Errorf("id %d has something", id)
		}
	}
	if _, ok := tok.ID("no such token"); ok {
		t.Error("a token that is not there has an id")
	}
}

func TestJSONIsRefusedByField(t *testing.T) {
	tests := []struct {
		family, field, value string
		unsupported          bool
		want                 string
	}{
		{"smollm", "pre_tokenizer", `null`, true, "pre_tokenizer: []"},
		{"smollm", "pre_tokenizer", `{"type": "Whitespace"}`, true, "Whitespace"},
		{"smollm", "pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\d+"}, "behavior": "Isolated"}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}`, true, `"\\d+"`},
		{"smollm", "pre_tokenizer", `{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}`, true, "ByteLevel"},
		{"smollm", "normalizer", `{"type": "Lowercase"}`, true, "normalizer: [Lowercase]"},
		{"smollm", "decoder", `null`, true, "decoder: []"},
		{"smollm", "post_processor", `{"type": "BertProcessing"}`, true, "post_processor: [BertProcessing]"},
		{"smollm", "model", `{"type": "Unigram"}`, true, "model.type"},
		{"smollm", "model", `{"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}}`, true, "model.dropout"},
		{"smollm", "model", `{"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": 0}}`, true, "model.end_of_word_suffix"},
		{"smollm", "model", `{"type": "BPE", "continuing_subword_prefix": "##", "vocab": {"a": 0}}`, true, "model.continuing_subword_prefix"},
		{"smollm", "model", `{"type": "BPE", "unk_token": "?", "vocab": {"a": 0}, "merges": []}`, false, "model.unk_token"},
		{"smollm", "model", `{"type": "BPE", "vocab": {}}`, false, "model.vocab"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": -1}}`, false, "model.vocab: id -1"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": 4000000000}}`, false, "model.vocab: id 4000000000"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": 1.5}}`, false, "model.vocab"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": "b"}}`, false, "model.vocab"},
		{"smollm", "model", `{"type": "BPE", "vocab": ["a"]}`, false, "model.vocab"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": 0, "b": 0}}`, false, "model.vocab: id 0"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}`, false, "model.merges[0]"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a", "a"]]}`, false, "model.merges[0]"},
		{"smollm", "model", `{"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}`, false, "model.merges[0]"},
		{"smollm", "added_tokens", `[{"id": 3, "content": "zzz"}]`, false, "added_tokens[0]"},
		{"smollm", "added_tokens", `[{"id": 5000000, "content": "zzz"}]`, false, "added_tokens[0]"},
		{"spm", "model", `{"type": "BPE", "byte_fallback": true, "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x00>": 3}}`, true, "<0x01>"},
		{"spm", "normalizer", `{"type": "NFKC"}`, true, "NFKC"},
		{"spm", "normalizer", `null`, true, "normalizer: []"},
		{"spm", "decoder", `{"type": "Metaspace"}`, true, "decoder: [Metaspace]"},
		{"spm", "post_processor", `{"type": "TemplateProcessing", "single": []}`, true, "single"},
		{"spm", "post_processor", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>"}}]}`, false, "<x>"},
		{"spm-first", "pre_tokenizer", `{"type": "Metaspace", "replacement": "_"}`, true, "Metaspace"},
		{"spm-first", "pre_tokenizer", `{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}`, true, "prepend_scheme"},
	}
	for _, test := range tests {
		fields := maps.Clone(familyFields(t, test.family))
		fields[test.field] = json.RawMessage(test.value)
		data, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		_, err = FromJSON(data, nil, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrUnsupported) != test.unsupported {
			t.Errorf("%s %.80s: %v; want %q, unsupported %v", test.field, test.value, err, test.want, test.unsupported)
		}
	}
	for _, bad := range []struct{ config, generation, want string }{
		{`{"eos_token": "<nope>"}`, ``, "tokenizer_config.json: eos_token"},
		{`{`, ``, "tokenizer_config.json"},
		{``, `{"eos_token_id": [1, 99999999999]}`, "generation_config.json: eos_token_id"},
		{``, `{"eos_token_id": "x"}`, "generation_config.json"},
		{`{"tokenizer_class": "LlamaTokenizer", "add_eos_token": true}`, ``, "add_eos_token"},
	} {
		_, err := FromJSON(familyJSON(t, "spm"), []byte(bad.config), []byte(bad.generation))
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s %s: %v; want %q", bad.config, bad.generation, err, bad.want)
		}
	}
}

func TestGGUFIsRefusedByField(t *testing.T) {
	tests := []struct {
		family, model, key string
		value              any // nil removes the key
		unsupported        bool
	}{
		{"smollm", "gpt2", "model", "bert", true},
		{"smollm", "gpt2", "model", nil, false},
		{"smollm", "gpt2", "pre", "deepseek-llm", true},
		{"smollm", "gpt2", "pre", "default", true},
		{"smollm", "gpt2", "pre", nil, true},
		{"smollm", "gpt2", "tokens", nil, false},
		{"smollm", "gpt2", "tokens", []string{"a"}, false},
		{"smollm", "gpt2", "token_type", []int64{1}, false},
		{"smollm", "gpt2", "merges", nil, false},
		{"smollm", "gpt2", "merges", []string{"a b c"}, false},
		{"smollm", "gpt2", "merges", []string{"a nope"}, false},
		{"smollm", "gpt2", "eos_token_id", uint64(1 << 40), false},
		{"smollm", "gpt2", "eot_token_id", int64(-5), false},
		{"smollm", "gpt2", "bos_token_id", uint64(99999), false},
		{"smollm", "gpt2", "add_bos_token", true, false},
		{"smollm", "gpt2", "add_eos_token", true, false},
		{"spm", "llama", "scores", nil, false},
		{"spm", "llama", "scores", []float64{1}, false},
		{"spm", "llama", "bos_token_id", nil, false},
	}
	for _, test := range tests {
		m := metadata(t, test.family, test.model, "smollm")
		delete(m, ggufPrefix+test.key)
		if test.value != nil {
			m[ggufPrefix+test.key] = test.value
		}
		_, err := FromGGUF(m)
		if err == nil || errors.Is(err, ErrUnsupported) != test.unsupported {
			t.Errorf("%s = %v: error %v, want unsupported %v", test.key, test.value, err, test.unsupported)
			continue
		}
		// An add_*_token that cannot be met names the id that is missing, and
		// types that do not match the tokens name whichever was read second.
		field := strings.TrimSuffix(strings.TrimPrefix(test.key, "add_"), "_token")
		if !strings.Contains(err.Error(), field) && test.key != "tokens" {
			t.Errorf("%s = %v: %v does not name the field", test.key, test.value, err)
		}
	}
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"added_tokens": [{"id": 3, "content": "<s>", "special": true, "lstrip": true}],
		"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}, "decoder": {"type": "ByteLevel"},
		"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [3]}}},
		"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}`), []byte(`{"eos_token": {"content": "<s>"}}`), []byte(`{"eos_token_id": [3]}`))
	f.Add([]byte(`{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false}]},
		"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}, "model": {"ignore_merges": true, "vocab": {"\u0120a": 7}, "merges": []}}`), []byte(nil), []byte(`{"eos_token_id": 7}`))
	f.Fuzz(func(t *testing.T, tokenizer, config, generation []byte) {
		tok, err := FromJSON(tokenizer, config, generation)
		if err != nil {
			return
		}
		useTokenizer(t, tok)
	})
}

// FuzzFromGGUF draws the metadata from the parts of a string.
func FuzzFromGGUF(f *testing.F) {
	f.Add("gpt2", "smollm", "a\nb\nab\n<s>", "a b", "\x01\x01\x01\x03", 3, true)
	f.Add("llama", "", "<unk>\n<s>\n▁\na\n▁a", "", "\x02\x03\x01\x01\x01", 1, false)
	f.Fuzz(func(t *testing.T, model, pre, tokens, merges, types string, special int, add bool) {
		m := weights.Metadata{
			ggufPrefix + "model": model, ggufPrefix + "pre": pre,
			ggufPrefix + "tokens": strings.Split(tokens, "\n"), ggufPrefix + "merges": strings.Split(merges, "\n"),
			ggufPrefix + "bos_token_id": int64(special), ggufPrefix + "eos_token_id": int64(special), ggufPrefix + "add_bos_token": add,
		}
		kinds, scores := make([]int64, len(types)), make([]float64, len(types))
		for i := range types {
			kinds[i], scores[i] = int64(types[i]), float64(types[i]>>3)
		}
		m[ggufPrefix+"token_type"] = kinds
		if model == "llama" {
			all := slices.Clone(m[ggufPrefix+"tokens"].([]string))
			for b := range 256 { // without them every input would be refused
				all = append(all, fmt.Sprintf("<0x%02X>", b))
			}
			m[ggufPrefix+"tokens"] = all
			m[ggufPrefix+"token_type"] = slices.Concat(kinds, slices.Repeat([]int64{ggufByte}, 256))
			m[ggufPrefix+"scores"] = slices.Concat(scores, make([]float64, 256))
		}
		tok, err := FromGGUF(m)
		if err != nil {
			return
		}
		useTokenizer(t, tok)
	})
}

// useTokenizer checks what must hold of any tokenizer that was accepted.
func useTokenizer(t *testing.T, tok *Tokenizer) {
	t.Helper()
	for _, text := range []string{"", "ab <s>  a\u0301b 12", strings.Repeat("ab", 100), "\xff▁"} {
		for _, o := range []EncodeOptions{{}, {AddSpecial: true, ParseSpecial: true}} {
			for _, id := range tok.Encode(text, o) {
				if tok.Bytes(id) == nil {
					t.Fatalf("%q gives unknown id %d", text, id)
				}
			}
		}
	}
	for _, id := range tok.EndOfGeneration() {
		if tok.Bytes(id) == nil {
			t.Fatalf("generation ends at unknown id %d", id)
		}
	}
}
