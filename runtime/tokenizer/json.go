package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
)

// FromJSON builds the tokenizer of a Hugging Face tokenizer.json.
// tokenizer_config.json, which names the special tokens, and
// generation_config.json, which lists the tokens that end generation, may be
// nil. Nothing of the three is kept.
//
// Understood are models of type BPE that are byte-level, with one of the known
// pre-tokenizer expressions, or of SentencePiece's kind, with byte fallback.
func FromJSON(tokenizerJSON, tokenizerConfigJSON, generationConfigJSON []byte) (*Tokenizer, error) {
	if n := len(tokenizerJSON) + len(tokenizerConfigJSON) + len(generationConfigJSON); n > maxFileBytes {
		return nil, fmt.Errorf("tokenizer.json: %d bytes, more than %d", n, maxFileBytes)
	}
	var f tokenizerFile
	if err := json.Unmarshal(tokenizerJSON, &f); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	j := &jsonFile{builder: newBuilder(len(f.Model.Vocab) + len(f.AddedTokens)), file: &f}
	normalizeAdded, err := j.build()
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if err := j.config(tokenizerConfigJSON); err != nil {
		return nil, fmt.Errorf("tokenizer_config.json: %w", err)
	}
	if err := j.generation(generationConfigJSON); err != nil {
		return nil, fmt.Errorf("generation_config.json: %w", err)
	}
	return j.finish(normalizeAdded), nil
}

// tokenizerFile is what is read of tokenizer.json. Truncation and padding are
// the affair of batching and not looked at.
type tokenizerFile struct {
	AddedTokens []struct {
		ID         int64  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	} `json:"added_tokens"`
	Normalizer    *step `json:"normalizer"`
	PreTokenizer  *step `json:"pre_tokenizer"`
	PostProcessor *step `json:"post_processor"`
	Decoder       *step `json:"decoder"`
	Model         struct {
		Type                    string    `json:"type"`
		Dropout                 *float64  `json:"dropout"`
		UnkToken                *string   `json:"unk_token"`
		ContinuingSubwordPrefix *string   `json:"continuing_subword_prefix"`
		EndOfWordSuffix         *string   `json:"end_of_word_suffix"`
		FuseUnk                 bool      `json:"fuse_unk"`
		ByteFallback            bool      `json:"byte_fallback"`
		IgnoreMerges            bool      `json:"ignore_merges"`
		Vocab                   vocabList `json:"vocab"`
		Merges                  mergeList `json:"merges"`
	} `json:"model"`
}

// jsonFile builds a tokenizer from tokenizer.json.
type jsonFile struct {
	*builder
	file *tokenizerFile
}

// build sets up everything that tokenizer.json says. It returns the
// normalisation of added tokens.
func (j *jsonFile) build() (normalizeAdded func(string) string, err error) {
	m := &j.file.Model
	switch {
	case m.Type != "BPE" && m.Type != "":
		return nil, fmt.Errorf("%w: model.type is %.40q; BPE is understood", ErrUnsupported, m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return nil, fmt.Errorf("%w: model.dropout is %g", ErrUnsupported, *m.Dropout)
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return nil, fmt.Errorf("%w: model.continuing_subword_prefix is %.40q", ErrUnsupported, *m.ContinuingSubwordPrefix)
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return nil, fmt.Errorf("%w: model.end_of_word_suffix is %.40q", ErrUnsupported, *m.EndOfWordSuffix)
	case len(m.Vocab) == 0:
		return nil, fmt.Errorf("model.vocab: missing")
	case len(m.Vocab)+len(j.file.AddedTokens) > maxVocab:
		return nil, fmt.Errorf("model.vocab: %d tokens, more than %d", len(m.Vocab), maxVocab)
	}
	if err := j.tokens(); err != nil {
		return nil, err
	}
	if m.ByteFallback {
		err = j.sentencePiece()
	} else {
		err = j.byteLevel()
	}
	if err != nil {
		return nil, err
	}
	return j.t.normalize, j.postProcessor()
}

// tokens enters the vocabulary and the added tokens.
func (j *jsonFile) tokens() error {
	for _, e := range j.file.Model.Vocab {
		if err := j.t.vocab.put("model.vocab", e.name, e.id, normal); err != nil {
			return err
		}
	}
	for i, a := range j.file.AddedTokens {
		field := fmt.Sprintf("added_tokens[%d]", i)
		if id, ok := j.t.vocab.ids[a.Content]; ok && int64(id) != a.ID {
			return fmt.Errorf("%s: %.40q has id %d here and %d before", field, a.Content, a.ID, id)
		}
		k := added
		if a.Special {
			k = special
		}
		if err := j.t.vocab.put(field, a.Content, a.ID, k); err != nil {
			return err
		}
		j.added = append(j.added, addedSpelling{
			spelling: a.Content, normalized: a.Normalized,
			token: addedToken{
				id: int32(a.ID), special: a.Special,
				singleWord: a.SingleWord, lstrip: a.LStrip, rstrip: a.RStrip,
			},
		})
	}
	return nil
}

// unknown returns the token for what the vocabulary lacks.
func (j *jsonFile) unknown() (int32, error) {
	name := j.file.Model.UnkToken
	if name == nil {
		return noToken, nil
	}
	id, ok := j.t.vocab.ids[*name]
	if !ok {
		return noToken, fmt.Errorf("model.unk_token: %.40q is not in the vocabulary", *name)
	}
	return id, nil
}

// config reads tokenizer_config.json.
func (j *jsonFile) config(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var c struct {
		Class       string       `json:"tokenizer_class"`
		BOS         *configToken `json:"bos_token"`
		EOS         *configToken `json:"eos_token"`
		AddBOSToken *bool        `json:"add_bos_token"`
		AddEOSToken *bool        `json:"add_eos_token"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	var err error
	if j.t.bos, err = j.named("bos_token", c.BOS, j.t.bos); err != nil {
		return err
	}
	if j.t.eos, err = j.named("eos_token", c.EOS, j.t.eos); err != nil {
		return err
	}
	// The tokenizers of the Llama classes put their own framing in place of the
	// file's; those of other classes do not look at these settings.
	if !strings.HasPrefix(c.Class, "LlamaTokenizer") && !strings.HasPrefix(c.Class, "CodeLlamaTokenizer") {
		return nil
	}
	if c.AddBOSToken != nil {
		if j.t.prefix, err = frame("add_bos_token", *c.AddBOSToken, j.t.bos); err != nil {
			return err
		}
	}
	if c.AddEOSToken != nil {
		if j.t.suffix, err = frame("add_eos_token", *c.AddEOSToken, j.t.eos); err != nil {
			return err
		}
	}
	return nil
}

// configToken is a token in tokenizer_config.json: a string, or an object with
// its content.
type configToken string

// UnmarshalJSON implements json.Unmarshaler.
func (c *configToken) UnmarshalJSON(data []byte) error {
	if data[0] != '{' {
		return json.Unmarshal(data, (*string)(c))
	}
	var object struct {
		Content string `json:"content"`
	}
	err := json.Unmarshal(data, &object)
	*c = configToken(object.Content)
	return err
}

// named looks up a token that a configuration names; without one, current holds.
func (j *jsonFile) named(field string, token *configToken, current int32) (int32, error) {
	if token == nil || *token == "" {
		return current, nil
	}
	id, ok := j.t.vocab.ids[string(*token)]
	if !ok {
		return noToken, fmt.Errorf("%s: %.40q is not in the vocabulary", field, string(*token))
	}
	return id, nil
}

// frame returns the tokens on one side of a text.
func frame(field string, add bool, id int32) ([]int32, error) {
	switch {
	case !add:
		return nil, nil
	case id == noToken:
		return nil, fmt.Errorf("%s: there is no such token", field)
	}
	return []int32{id}, nil
}

// generation reads generation_config.json.
func (j *jsonFile) generation(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var c struct {
		EOS idList `json:"eos_token_id"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	for _, id := range c.EOS {
		if err := j.stop("eos_token_id", id); err != nil {
			return err
		}
	}
	if j.t.eos == noToken && len(c.EOS) > 0 {
		j.t.eos = int32(c.EOS[0])
	}
	return nil
}

// idList reads one id or a list of them.
type idList []int64

// UnmarshalJSON implements json.Unmarshaler.
func (l *idList) UnmarshalJSON(data []byte) error {
	if data[0] == '[' {
		return json.Unmarshal(data, (*[]int64)(l))
	}
	var id *int64
	if err := json.Unmarshal(data, &id); err != nil {
		return err
	}
	*l = nil
	if id != nil {
		*l = idList{*id}
	}
	return nil
}
