package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxSteps bounds a flattened pipeline; real ones have up to four steps.
const maxSteps = 32

// step is a normaliser, pre-tokenizer, post-processor or decoder of
// tokenizer.json. The fields are those of all types together.
type step struct {
	Type string `json:"type"`

	// Sequence, under the name of each kind.
	Normalizers   []*step `json:"normalizers"`
	PreTokenizers []*step `json:"pretokenizers"`
	Processors    []*step `json:"processors"`
	Decoders      []*step `json:"decoders"`

	// Prepend, Replace, Split, Strip.
	Prepend  string  `json:"prepend"`
	Pattern  pattern `json:"pattern"`
	Content  string  `json:"content"`
	Behavior string  `json:"behavior"`
	Invert   bool    `json:"invert"`
	Start    int     `json:"start"`
	Stop     int     `json:"stop"`

	// ByteLevel, Digits, Metaspace. The settings that are pointers have a
	// default other than false.
	AddPrefixSpace   *bool  `json:"add_prefix_space"`
	UseRegex         *bool  `json:"use_regex"`
	IndividualDigits bool   `json:"individual_digits"`
	Replacement      string `json:"replacement"`
	PrependScheme    string `json:"prepend_scheme"`
	Split            *bool  `json:"split"`

	// TemplateProcessing.
	Single        []templatePiece `json:"single"`
	SpecialTokens map[string]struct {
		IDs []int64 `json:"ids"`
	} `json:"special_tokens"`
}

// pattern is a string or a regular expression.
type pattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

type templatePiece struct {
	SpecialToken *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID string `json:"id"`
	} `json:"Sequence"`
}

// orTrue returns a setting whose default is true.
func orTrue(b *bool) bool { return b == nil || *b }

var errTooManySteps = errors.New("too many steps")

// flatten returns the steps of a possibly nested sequence in order.
func flatten(s *step) ([]*step, error) {
	if s == nil {
		return nil, nil
	}
	if s.Type != "Sequence" {
		return []*step{s}, nil
	}
	var out []*step
	for _, inner := range slices.Concat(s.Normalizers, s.PreTokenizers, s.Processors, s.Decoders) {
		steps, err := flatten(inner)
		if err != nil {
			return nil, err
		}
		if out = append(out, steps...); len(out) > maxSteps {
			return nil, errTooManySteps
		}
	}
	return out, nil
}

// describe names steps for an error.
func describe(steps []*step) string {
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = fmt.Sprintf("%.40s", s.Type)
		switch {
		case s.Pattern.Regex != nil:
			names[i] += fmt.Sprintf("(%.200q)", *s.Pattern.Regex)
		case s.Pattern.String != nil:
			names[i] += fmt.Sprintf("(%.40q)", *s.Pattern.String)
		}
	}
	return "[" + strings.Join(names, ", ") + "]"
}

func unsupportedSteps(field string, steps []*step) error {
	return fmt.Errorf("%w: %s: %s is not understood", ErrUnsupported, field, describe(steps))
}

// byteLevel sets up a byte-level model.
func (j *jsonFile) byteLevel() error {
	b := &byteLevel{table: classes(), fuse: j.file.Model.FuseUnk, cache: newPieceCache()}
	normalizers, err := flatten(j.file.Normalizer)
	if err != nil {
		return fmt.Errorf("normalizer: %w", err)
	}
	for _, n := range normalizers {
		if n.Type != "NFC" {
			return unsupportedSteps("normalizer", normalizers)
		}
		j.t.normalize = nfc // once is enough: it is idempotent
	}
	if err := b.preTokenizer(j.file.PreTokenizer); err != nil {
		return err
	}
	decoders, err := flatten(j.file.Decoder)
	if err != nil {
		return fmt.Errorf("decoder: %w", err)
	}
	if len(decoders) != 1 || decoders[0].Type != "ByteLevel" {
		return unsupportedSteps("decoder", decoders)
	}
	if b.unknown, err = j.unknown(); err != nil {
		return err
	}
	if b.merges, err = j.parseMerges("model.merges", j.file.Model.Merges, b.joined.addToken); err != nil {
		return err
	}
	j.byteSymbols(&b.symbols)
	if j.file.Model.IgnoreMerges {
		b.whole = j.whole()
	}
	j.t.model = b
	return nil
}

// preTokenizer sets up the scanner from [Digits?, Split?, ByteLevel].
func (b *byteLevel) preTokenizer(s *step) error {
	all, err := flatten(s)
	if err != nil {
		return fmt.Errorf("pre_tokenizer: %w", err)
	}
	unsupported := unsupportedSteps("pre_tokenizer", all)
	steps := all
	if len(steps) > 0 && steps[0].Type == "Digits" {
		if !steps[0].IndividualDigits {
			return unsupported
		}
		b.digits = true
		steps = steps[1:]
	}
	if len(steps) > 0 && steps[0].Type == "Split" {
		split := steps[0]
		if split.Behavior != "Isolated" || split.Invert || split.Pattern.Regex == nil {
			return unsupported
		}
		if b.scan = scanners[*split.Pattern.Regex]; b.scan == nil {
			return unsupported
		}
		steps = steps[1:]
	}
	if len(steps) != 1 || steps[0].Type != "ByteLevel" {
		return unsupported
	}
	if useRegex := orTrue(steps[0].UseRegex); useRegex == (b.scan != nil) {
		return unsupported // no expression, or one after the other
	} else if useRegex {
		b.scan = scanGPT2
	}
	b.addPrefix = orTrue(steps[0].AddPrefixSpace)
	if b.addPrefix && len(all) > 1 {
		return unsupported // a space before every piece of the step before
	}
	return nil
}

// sentencePiece sets up a model of SentencePiece's kind.
func (j *jsonFile) sentencePiece() error {
	// An added token that is not in the model's vocabulary is unknown to it.
	inModel := make([]bool, len(j.t.vocab.kinds))
	for _, e := range j.file.Model.Vocab {
		inModel[e.id] = true // tokens has checked the ids
	}
	sp, err := j.sentencePieceModel(func(id int) bool { return inModel[id] })
	if err != nil {
		return fmt.Errorf("model.vocab: %w", err)
	}
	for i, p := range j.file.Model.Merges {
		if isByteToken(p.left) || isByteToken(p.right) {
			return fmt.Errorf("%w: model.merges[%d]: %.40q + %.40q: a byte token merges", ErrUnsupported, i, p.left, p.right)
		}
	}
	if sp.merges, err = j.parseMerges("model.merges", j.file.Model.Merges, sp.joined.addToken); err != nil {
		return err
	}
	if j.file.Model.IgnoreMerges {
		return fmt.Errorf("%w: model.ignore_merges together with byte_fallback", ErrUnsupported)
	}
	if err := j.spaces(sp); err != nil {
		return err
	}
	j.t.model = sp
	return j.sentencePieceDecoder()
}

// spaces reads how spaces are written: by normalisers Prepend and Replace, or by
// the pre-tokenizer Metaspace.
func (j *jsonFile) spaces(sp *sentencePiece) error {
	normalizers, err := flatten(j.file.Normalizer)
	if err != nil {
		return fmt.Errorf("normalizer: %w", err)
	}
	preTokenizers, err := flatten(j.file.PreTokenizer)
	if err != nil {
		return fmt.Errorf("pre_tokenizer: %w", err)
	}
	prepends := len(normalizers) > 0 && normalizers[0].Type == "Prepend"
	rest := normalizers
	if prepends {
		if normalizers[0].Prepend != meta {
			return unsupportedSteps("normalizer", normalizers)
		}
		rest = rest[1:]
	}
	switch {
	case len(rest) == 1 && rest[0].replaces(" ", meta) && len(preTokenizers) == 0:
		j.t.normalize = metaNormalizer(prepends)
		return nil
	case len(normalizers) == 0 && len(preTokenizers) == 1 && preTokenizers[0].Type == "Metaspace":
		sp.metaspace, err = preTokenizers[0].metaspace()
		return err
	case len(preTokenizers) > 0:
		return unsupportedSteps("pre_tokenizer", preTokenizers)
	}
	return unsupportedSteps("normalizer", normalizers)
}

// replaces says whether the step is Replace of one string by another.
func (s *step) replaces(from, to string) bool {
	return s.Type == "Replace" && s.Pattern.String != nil && *s.Pattern.String == from && s.Content == to
}

func (s *step) metaspace() (*metaspace, error) {
	if s.Replacement != meta {
		return nil, fmt.Errorf("%w: pre_tokenizer: Metaspace writes spaces as %.20q", ErrUnsupported, s.Replacement)
	}
	m := &metaspace{split: orTrue(s.Split)}
	switch s.PrependScheme {
	case "always", "":
		m.prefix = prefixAlways
	case "first":
		m.prefix = prefixFirst
	case "never":
		m.prefix = prefixNever
	default:
		return nil, fmt.Errorf("%w: pre_tokenizer: prepend_scheme is %.20q", ErrUnsupported, s.PrependScheme)
	}
	if !orTrue(s.AddPrefixSpace) {
		if s.PrependScheme != "never" && s.PrependScheme != "" {
			return nil, fmt.Errorf("pre_tokenizer: add_prefix_space is false and prepend_scheme %q", s.PrependScheme)
		}
		m.prefix = prefixNever
	}
	return m, nil
}

// metaNormalizer writes spaces as meta, and one more before the text.
func metaNormalizer(prepend bool) func(string) string {
	if !prepend {
		return func(s string) string { return strings.ReplaceAll(s, " ", meta) }
	}
	return func(s string) string {
		if s == "" {
			return s
		}
		return meta + strings.ReplaceAll(s, " ", meta)
	}
}

// sentencePieceDecoder accepts [Replace, ByteFallback, Fuse, Strip?].
func (j *jsonFile) sentencePieceDecoder() error {
	steps, err := flatten(j.file.Decoder)
	if err != nil {
		return fmt.Errorf("decoder: %w", err)
	}
	if len(steps) < 3 || !steps[0].replaces(meta, " ") || steps[1].Type != "ByteFallback" || steps[2].Type != "Fuse" {
		return unsupportedSteps("decoder", steps)
	}
	switch rest := steps[3:]; {
	case len(rest) == 0:
	case len(rest) == 1 && rest[0].Type == "Strip" && rest[0].Content == " " && rest[0].Start == 1 && rest[0].Stop == 0:
		j.t.stripSpace = true
	default:
		return unsupportedSteps("decoder", steps)
	}
	return nil
}

// postProcessor reads the tokens around a text.
func (j *jsonFile) postProcessor() error {
	steps, err := flatten(j.file.PostProcessor)
	if err != nil {
		return fmt.Errorf("post_processor: %w", err)
	}
	for _, s := range steps {
		switch s.Type {
		case "ByteLevel": // offsets only
		case "TemplateProcessing":
			if err := j.template(s); err != nil {
				return fmt.Errorf("post_processor: %w", err)
			}
		default:
			return unsupportedSteps("post_processor", steps)
		}
	}
	return nil
}

func (j *jsonFile) template(s *step) error {
	j.t.prefix, j.t.suffix = nil, nil
	into, texts := &j.t.prefix, 0
	for _, piece := range s.Single {
		switch {
		case piece.Sequence != nil:
			into = &j.t.suffix
			texts++
		case piece.SpecialToken != nil:
			token, ok := s.SpecialTokens[piece.SpecialToken.ID]
			if !ok {
				return fmt.Errorf("single: %.40q is not among special_tokens", piece.SpecialToken.ID)
			}
			for _, id := range token.IDs {
				if id < 0 || id >= maxVocab || !j.t.vocab.has(int32(id)) {
					return fmt.Errorf("special_tokens: no token has id %d", id)
				}
				*into = append(*into, int32(id))
			}
		}
	}
	if texts != 1 {
		return fmt.Errorf("%w: single holds the text %d times", ErrUnsupported, texts)
	}
	if len(j.t.prefix) == 1 {
		j.t.bos = j.t.prefix[0] // unless tokenizer_config.json names another
	}
	return nil
}
