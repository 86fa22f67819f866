package tokenizer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/moaserve/moaserve/runtime/weights"
)

// The values of tokenizer.ggml.token_type.
const (
	ggufNormal = iota + 1
	ggufUnknown
	ggufControl
	ggufUserDefined
	ggufUnused
	ggufByte
)

const ggufPrefix = "tokenizer.ggml."

// FromGGUF builds the tokenizer that a GGUF file describes under
// tokenizer.ggml. Models "gpt2" (byte-level BPE, with a pre-tokenizer that is
// known by its name) and "llama" (SentencePiece BPE by scores) are understood.
// The metadata is not kept, but its strings are.
func FromGGUF(m weights.Metadata) (*Tokenizer, error) {
	t, err := fromGGUF(m)
	if err != nil {
		return nil, fmt.Errorf("GGUF tokenizer: %w", err)
	}
	return t, nil
}

func fromGGUF(m weights.Metadata) (*Tokenizer, error) {
	tokens, ok := m.Strings(ggufPrefix + "tokens")
	if !ok || len(tokens) == 0 {
		return nil, fmt.Errorf("%stokens: missing", ggufPrefix)
	}
	if len(tokens) > maxVocab {
		return nil, fmt.Errorf("%stokens: %d tokens, more than %d", ggufPrefix, len(tokens), maxVocab)
	}
	types, ok := m.Ints(ggufPrefix + "token_type")
	if ok && len(types) != len(tokens) {
		return nil, fmt.Errorf("%stoken_type: %d values for %d tokens", ggufPrefix, len(types), len(tokens))
	}
	g := &ggufFile{builder: newBuilder(len(tokens)), m: m, types: types}
	if err := g.addTokens(tokens); err != nil {
		return nil, err
	}
	model, _ := m.String(ggufPrefix + "model")
	var addBOS bool
	var err error
	switch model {
	case "gpt2":
		addBOS, err = g.byteLevel()
	case "llama":
		addBOS, err = true, g.sentencePiece()
	case "":
		err = fmt.Errorf("%smodel: missing", ggufPrefix)
	default:
		err = fmt.Errorf("%w: %smodel is %.40q; gpt2 and llama are understood", ErrUnsupported, ggufPrefix, model)
	}
	if err != nil {
		return nil, err
	}
	if err := g.specials(addBOS); err != nil {
		return nil, err
	}
	return g.finish(nil), nil
}

// ggufFile builds a tokenizer from metadata.
type ggufFile struct {
	*builder
	m     weights.Metadata
	types []int // of the tokens; nil when the file does not say: all normal
}

func (g *ggufFile) tokenType(id int) int {
	if g.types == nil {
		return ggufNormal
	}
	return g.types[id]
}

// addTokens enters the vocabulary. Control and user-defined tokens are found in
// the text before it is tokenised; only the former are special.
func (g *ggufFile) addTokens(tokens []string) error {
	for id, name := range tokens {
		k := normal
		switch g.tokenType(id) {
		case ggufControl, ggufUnknown:
			k = special
		case ggufUserDefined:
			k = added
		}
		if err := g.t.vocab.put(ggufPrefix+"tokens", name, int64(id), k); err != nil {
			return err
		}
		if k != normal {
			g.added = append(g.added, addedSpelling{
				spelling: name,
				token:    addedToken{id: int32(id), special: k == special},
			})
		}
	}
	return nil
}

// byteLevel sets up model "gpt2". addBOS is what holds when the file does not
// say.
//
// add_space_prefix is not looked at: converters copy it from settings that
// byte-level tokenizers ignore.
func (g *ggufFile) byteLevel() (addBOS bool, err error) {
	name, _ := g.m.String(ggufPrefix + "pre")
	pre, ok := ggufPreTokenizers[name]
	if !ok {
		if name == "" || name == "default" {
			return false, fmt.Errorf("%w: %spre does not name the pre-tokenizer; convert the model again", ErrUnsupported, ggufPrefix)
		}
		return false, fmt.Errorf("%w: %spre is %.40q", ErrUnsupported, ggufPrefix, name)
	}
	lines, ok := g.m.Strings(ggufPrefix + "merges")
	if !ok {
		return false, fmt.Errorf("%smerges: missing", ggufPrefix)
	}
	pairs := make([]mergePair, len(lines))
	for i, line := range lines {
		if pairs[i], err = splitMerge(line); err != nil {
			return false, fmt.Errorf("%smerges[%d]: %.40q: %w", ggufPrefix, i, line, err)
		}
	}
	b := &byteLevel{table: classes(), scan: pre.scan, digits: pre.digits, unknown: noToken, cache: newPieceCache()}
	if b.merges, err = g.parseMerges(ggufPrefix+"merges", pairs, b.joined.addToken); err != nil {
		return false, err
	}
	g.byteSymbols(&b.symbols)
	if pre.ignoreMerges {
		b.whole = g.whole()
	}
	if pre.nfc {
		g.t.normalize = nfc
	}
	g.t.model = b
	return pre.addBOS, nil
}

// sentencePiece sets up model "llama".
func (g *ggufFile) sentencePiece() error {
	scores, ok := g.m.Floats(ggufPrefix + "scores")
	if names := g.t.vocab.names; !ok || len(scores) != len(names) {
		return fmt.Errorf("%sscores: %d values for %d tokens", ggufPrefix, len(scores), len(names))
	}
	mergeable := func(id int) bool {
		k := g.tokenType(id)
		return k == ggufNormal || k == ggufUserDefined
	}
	sp, err := g.sentencePieceModel(mergeable)
	if err != nil {
		return err
	}
	sp.merges, err = g.scoredMerges(scores, mergeable, &sp.joined)
	if err != nil {
		return err
	}
	prefix, ok := g.m.Bool(ggufPrefix + "add_space_prefix")
	prefix = prefix || !ok
	g.t.normalize = metaNormalizer(prefix)
	g.t.stripSpace = prefix
	g.t.model = sp
	return nil
}

// scoredMerges derives the merge rules from the scores: two tokens merge when
// what they make is a token, the better its score the earlier. Equal scores have
// equal rank, so that the leftmost pair goes first.
func (g *ggufFile) scoredMerges(scores []float64, mergeable func(id int) bool, joined *runePairs) (merges, error) {
	v := &g.t.vocab
	type rule struct {
		left, right, id int32
	}
	var rules []rule
	for id, name := range v.names {
		if !mergeable(id) || v.ids[name] != int32(id) {
			continue
		}
		if math.IsNaN(scores[id]) {
			return merges{}, fmt.Errorf("%sscores[%d]: not a number", ggufPrefix, id)
		}
		for i := 1; i < len(name); i++ {
			if !utf8.RuneStart(name[i]) {
				continue
			}
			left, okLeft := v.ids[name[:i]]
			right, okRight := v.ids[name[i:]]
			if okLeft && okRight && mergeable(int(left)) && mergeable(int(right)) {
				rules = append(rules, rule{left, right, int32(id)})
			}
		}
	}
	if len(rules) > maxMerges {
		return merges{}, fmt.Errorf("%stokens: they make %d merge rules, more than %d", ggufPrefix, len(rules), maxMerges)
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(scores[b.id], scores[a.id]) })
	m := newMerges(len(rules))
	rank := uint32(0)
	for i, r := range rules {
		if i > 0 && scores[r.id] != scores[rules[i-1].id] {
			rank++
		}
		m.set(r.left, r.right, rank, r.id)
		joined.addToken(v.names[r.id])
	}
	return m, nil
}

// specials reads the ids of the special tokens and what surrounds a text.
func (g *ggufFile) specials(addBOS bool) error {
	token := func(key string) (int32, error) {
		id, ok := g.m.Int(ggufPrefix + key)
		if !ok {
			return noToken, nil
		}
		if id < 0 || id >= g.t.VocabSize() {
			return noToken, fmt.Errorf("%s%s: no token has id %d", ggufPrefix, key, id)
		}
		return int32(id), nil
	}
	var err error
	if g.t.bos, err = token("bos_token_id"); err != nil {
		return err
	}
	if g.t.eos, err = token("eos_token_id"); err != nil {
		return err
	}
	for _, key := range []string{"eot_token_id", "eom_token_id"} {
		id, err := token(key)
		if err != nil {
			return err
		}
		if id != noToken {
			g.stops = append(g.stops, id)
		}
	}
	if v, ok := g.m.Bool(ggufPrefix + "add_bos_token"); ok {
		addBOS = v
	}
	addEOS, _ := g.m.Bool(ggufPrefix + "add_eos_token")
	if addBOS {
		if g.t.bos == noToken {
			return fmt.Errorf("%sbos_token_id: missing, but texts begin with it", ggufPrefix)
		}
		g.t.prefix = []int32{g.t.bos}
	}
	if addEOS {
		if g.t.eos == noToken {
			return fmt.Errorf("%seos_token_id: missing, but texts end with it", ggufPrefix)
		}
		g.t.suffix = []int32{g.t.eos}
	}
	return nil
}
