package plan

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// upstreamFile is a plan as the MoA repository publishes it: a rule per query
// head, and nothing else.
type upstreamFile struct {
	Alphas [][]float64 `json:"alphas"` // [layers][query heads], tokens
	Betas  [][]float64 `json:"betas"`  // [layers][query heads]
}

// DefaultImportLength is the length, in tokens, at which an import compares the
// rules of a group: the longest length that bounds the published plans.
const DefaultImportLength = 16384

// reportLengths are the lengths an ImportReport states densities at.
var reportLengths = []int{2048, 4096, 8192, 16384, 32768}

// Importer turns upstream plans into plans with one rule per KV head.
//
// The query heads of a group read the same pages, so a group needs one rule.
// Rules are lines alpha + beta*N, and which of two lines is the higher depends
// on N: "the widest rule" exists only at a stated length. The zero value takes
// the rule that is widest at DefaultImportLength (among rules equal there, the
// widest at the shorter lengths of the report); at other lengths a query head may
// then see less than its own rule says, and the report counts where. With Cover
// the importer makes the line that no rule of the group exceeds from 1024 tokens
// to Length: no query head loses anything there, for more memory.
type Importer struct {
	Length int // in tokens; 0 means DefaultImportLength
	Cover  bool
}

// ImportReport says what an import costs.
type ImportReport struct {
	QueryHeads int // rules in the file
	KVHeads    int // rules in the plan
	// Shared counts the KV heads whose query heads all had the same rule.
	Shared  int
	Lengths []ImportCost
}

// ImportCost compares, at one total length, the file with the plan made from it.
type ImportCost struct {
	Tokens int
	// Before is the density of the file's rules, each on its own copy of the KV
	// head; After is the plan's. Both count the sink.
	Before, After float64
	// Upstream is the KV memory that the published implementation takes for the
	// file, over the model's own dense KV cache: it keeps a cache for each query
	// head, so it can exceed 1.
	Upstream float64
	// Narrowed counts the KV heads where some query head sees less than its own
	// rule says.
	Narrowed int
}

// ImportUpstream converts a published plan with the default [Importer].
func ImportUpstream(data []byte, m Shape) (*Plan, ImportReport, error) {
	return Importer{}.Import(data, m)
}

// Import converts a published plan, {"alphas": [[...]], "betas": [[...]]} with a
// rule per layer and query head, for the model m. The plan has span: length, as
// published, so its masks are those that the published search evaluated. m must
// state layers, query heads and KV heads.
func (im Importer) Import(data []byte, m Shape) (*Plan, ImportReport, error) {
	if im.Length == 0 {
		im.Length = DefaultImportLength
	}
	if im.Length < minBucket || im.Length > maxImportLength {
		return nil, ImportReport{}, fmt.Errorf("importing: the length is %d; %d to %d tokens", im.Length, minBucket, maxImportLength)
	}
	own, err := decodeUpstream(data, m)
	if err != nil {
		return nil, ImportReport{}, fmt.Errorf("importing: %w", err)
	}
	p := &Plan{Name: "imported", Model: m, Span: SpanLength}
	group := m.QueryHeads / m.KVHeads
	index := map[Rule]int{}
	merged := make([][]Rule, m.Layers)
	for i, layer := range own.rules {
		p.Heads = append(p.Heads, make([]int, m.KVHeads))
		for kv := range m.KVHeads {
			r := im.merge(layer[kv*group : (kv+1)*group])
			merged[i] = append(merged[i], r)
			if _, ok := index[r]; !ok {
				index[r] = len(p.Rules)
				p.Rules = append(p.Rules, r)
			}
			p.Heads[i][kv] = index[r]
		}
	}
	if p.Search, err = json.Marshal(map[string]any{
		"imported": "published plan, one rule per query head", "length": im.Length, "cover": im.Cover,
	}); err != nil {
		return nil, ImportReport{}, err
	}
	report := own.report(merged, m)
	p.Densities = map[int]float64{}
	for _, c := range report.Lengths {
		p.Densities[c.Tokens] = c.After
	}
	return p, report, p.Validate()
}

// minBucket is the shortest total length that spans are taken from; see Bucket.
// maxImportLength bounds the work of merging a group.
const (
	minBucket       = 1024
	maxImportLength = 1 << 20
)

// merge returns the rule of a KV head whose query heads have these rules.
func (im Importer) merge(rules []Rule) Rule {
	best := rules[0]
	for _, r := range rules[1:] {
		if im.wider(r, best) > 0 {
			best = r
		}
	}
	if !im.Cover || !slices.ContainsFunc(rules, func(r Rule) bool { return r != best }) {
		return best
	}
	// The widest span as a function of length is convex, so the chord between its
	// ends covers it. The constant part is then raised by what the rounding to
	// blocks takes away; a whole number of blocks is always enough.
	lo, hi := minBucket/BlockSize, im.Length/BlockSize
	if lo == hi {
		return best
	}
	beta := float64(widest(rules, hi)-widest(rules, lo)) / float64(hi-lo)
	beta = min(max(beta, 0), 1)
	alpha := math.MinInt
	for n := lo; n <= hi; n++ {
		alpha = max(alpha, widest(rules, n)-int(math.Floor(beta*float64(n))))
	}
	return Rule{Alpha: alpha * BlockSize, Beta: beta}
}

// wider orders rules by their span at the import's length, then by those at the
// shorter lengths of the report, longest first.
func (im Importer) wider(a, b Rule) int {
	compare := func(tokens int) int {
		n := tokens / BlockSize
		return a.lengthBlocks(n-1, n) - b.lengthBlocks(n-1, n)
	}
	if c := compare(im.Length); c != 0 {
		return c
	}
	for _, tokens := range slices.Backward(reportLengths) {
		if c := compare(tokens); tokens < im.Length && c != 0 {
			return c
		}
	}
	return 0
}

// widest returns the largest span, in blocks, that the rules have at a total of
// n blocks.
func widest(rules []Rule, n int) int {
	b := 1
	for _, r := range rules {
		b = max(b, r.lengthBlocks(n-1, n))
	}
	return b
}

// upstreamPlan holds the rules of a file, [layers][query heads].
type upstreamPlan struct {
	rules [][]Rule
}

func decodeUpstream(data []byte, m Shape) (*upstreamPlan, error) {
	if m.Layers < 1 || m.KVHeads < 1 || m.QueryHeads < m.KVHeads || m.QueryHeads%m.KVHeads != 0 {
		return nil, fmt.Errorf("a model of %d layers, %d query heads and %d KV heads", m.Layers, m.QueryHeads, m.KVHeads)
	}
	if len(data) > MaxFileBytes {
		return nil, wrong("", "has %d bytes, more than %d", len(data), MaxFileBytes)
	}
	var f upstreamFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, jsonError(err)
	}
	if len(f.Alphas) != m.Layers || len(f.Betas) != m.Layers {
		return nil, wrong("alphas and betas", "have %d and %d layers, the model has %d", len(f.Alphas), len(f.Betas), m.Layers)
	}
	p := &upstreamPlan{rules: make([][]Rule, m.Layers)}
	for i := range f.Alphas {
		if len(f.Alphas[i]) != m.QueryHeads || len(f.Betas[i]) != m.QueryHeads {
			return nil, wrong(fmt.Sprintf("alphas[%d] and betas[%d]", i, i), "have %d and %d heads, the model has %d query heads",
				len(f.Alphas[i]), len(f.Betas[i]), m.QueryHeads)
		}
		for j, alpha := range f.Alphas[i] {
			if alpha != math.Trunc(alpha) || math.Abs(alpha) > MaxContext {
				return nil, wrong(fmt.Sprintf("alphas[%d][%d]", i, j), "is %v: a whole number of tokens of at most %d", alpha, MaxContext)
			}
			beta := f.Betas[i][j]
			if !(beta >= 0 && beta <= 1) {
				return nil, wrong(fmt.Sprintf("betas[%d][%d]", i, j), "is %v: 0 to 1", beta)
			}
			p.rules[i] = append(p.rules[i], Rule{Alpha: int(alpha), Beta: beta})
		}
	}
	return p, nil
}

// report compares the file's rules with the merged ones, [layers][KV heads].
func (p *upstreamPlan) report(merged [][]Rule, m Shape) ImportReport {
	group := m.QueryHeads / m.KVHeads
	r := ImportReport{QueryHeads: m.Layers * m.QueryHeads, KVHeads: m.Layers * m.KVHeads}
	for i, layer := range p.rules {
		for kv := range merged[i] {
			g := layer[kv*group : (kv+1)*group]
			if !slices.ContainsFunc(g, func(r Rule) bool { return r != g[0] }) {
				r.Shared++
			}
		}
	}
	for _, tokens := range reportLengths {
		n := tokens / BlockSize
		c := ImportCost{Tokens: tokens}
		var before, after, slots int
		for i, layer := range p.rules {
			for kv, rule := range merged[i] {
				b := rule.lengthBlocks(n-1, n)
				after += min(b+1, n)
				if b < widest(layer[kv*group:(kv+1)*group], n) {
					c.Narrowed++
				}
			}
			for _, rule := range layer {
				before += min(rule.lengthBlocks(n-1, n)+1, n)
				slots += upstreamSlots(rule, tokens)
			}
		}
		c.Before = float64(before) / float64(r.QueryHeads*n)
		c.After = float64(after) / float64(r.KVHeads*n)
		c.Upstream = float64(slots) / float64(r.KVHeads*tokens)
		r.Lengths = append(r.Lengths, c)
	}
	return r
}

// upstreamSlots returns the tokens that the published implementation keeps for a
// query head when the total length is tokens: at least 128, at most all, rounded
// up to blocks. Its sink is inside the span.
func upstreamSlots(r Rule, tokens int) int {
	span := int(float64(r.Alpha) + r.Beta*float64(tokens))
	span = max(2*BlockSize, min(tokens, span))
	return (span + BlockSize - 1) / BlockSize * BlockSize
}
