package cudakernels

// BlockTokens is the number of tokens of a block, a page and a query tile.
const BlockTokens = 64

// Ptr is an address in device memory; 0 is none.
type Ptr uint64

// Header counts what a step holds. The kernels read it from device memory.
type Header struct {
	Deltas  int32 // page-table entries to change
	Decodes int32 // sequences 0 to Decodes-1 decode: one new token each
	Seqs    int32 // sequences in all; the others prefill
	Rows    int32 // new tokens of all sequences
	_       [12]int32
}

// Seq is one sequence of a step.
type Seq struct {
	Slot  int32 // page table
	Row   int32 // row of the first new token
	Len   int32 // new tokens
	Start int32 // absolute position of the first new token
	Rules int32 // index of the rule of head 0 in the array of rules
	// Floor is the floor of span: position, in blocks. Total is the length that
	// span: length is bound to, in blocks; 0 means span: position.
	Floor, Total int32
	Tile         int32 // first query tile; -1 for a decoding sequence
}

// Rule is the span rule of one head, as in runtime/plan: Alpha in tokens, Beta
// the share of the length. The rules of a plan are heads (layers * KV heads)
// entries in order; several plans follow one another in one array.
type Rule struct {
	Alpha, Beta float64
}

// Row is one new token.
type Row struct {
	Seq int32 // -1 for padding
	Pos int32 // absolute position
}

// TableDelta enters a page into a table: block Block of head Head of the sequence
// in Slot lives in Page from now on.
type TableDelta struct {
	Slot, Head, Block, Page int32
}

// SampleRow says how the token of one row is chosen and what is told about it:
// the fields of sample.Params of those names, and what a sample.Sampler adds.
type SampleRow struct {
	Uniform float64 // in [0, 1): it decides the draw
	// Mask has a bit for each token that may be chosen, bit id%32 of word id/32;
	// what is beyond MaskWords may not be chosen. uint32 [MaskWords]; 0 for none.
	Mask Ptr
	// Adjustments change logits; they are used up. Adjustment [Adjusted], each of
	// another token.
	Adjustments Ptr
	// Pending is where the token lies that was chosen last, an int32, when the
	// adjustments do not count it yet; 0 when they do, and when nothing counts. It must
	// not be among the tokens that the launch writes.
	Pending Ptr

	Temperature, TopP, MinP         float32
	TopK                            int32
	Repetition, Frequency, Presence float32 // Repetition is 1 when it is off
	MaskWords, Adjusted             int32
	// Logprobs is 0 when the token alone is wanted, 1 with its log-probability, and
	// 1+k with those of the k likeliest tokens too, k up to TopLogprobs.
	Logprobs int32
}

// Adjustment changes the logit of one token before anything is chosen. It has the
// fields of sample.Adjustment.
type Adjustment struct {
	ID    int32
	Count int32
	Bias  float32
}

// Choice is what is told about a row's token.
type Choice struct {
	ID      int32
	Logprob float32                 // where it is wanted, like the next
	Tops    [TopLogprobs]TopLogprob // likeliest first
}

// TopLogprob is one of a row's likeliest tokens with its natural log-probability.
type TopLogprob struct {
	ID      int32 // -1 for none
	Logprob float32
}

// TopLogprobs is the largest number of likeliest tokens that a row may ask for.
const TopLogprobs = 20

// StoredHeadDim returns the number of dimensions that a page and a query keep of
// a head: 64, 128 or 256. It is 0 for head sizes that no kernel takes: those above
// 256 and those that are no multiple of 8.
func StoredHeadDim(headDim int) int {
	if headDim <= 0 || headDim%8 != 0 {
		return 0
	}
	for _, d := range [...]int{64, 128, 256} {
		if headDim <= d {
			return d
		}
	}
	return 0
}

// Tiles returns how many query tiles a prefilling sequence of n new tokens from
// position start has.
func Tiles(start, n int) int {
	if n <= 0 {
		return 0
	}
	return (start+n-1)/BlockTokens - start/BlockTokens + 1
}

// QueryTileBytes returns the size of the query tiles of all heads.
func QueryTileBytes(tiles, heads, headDim int) int {
	return tiles * heads * BlockTokens * StoredHeadDim(headDim) * 2
}

// TableBytes returns the size of the page tables of slots sequences.
func TableBytes(slots, heads, maxBlocks int) int { return 4 * slots * heads * maxBlocks }

const (
	maxGrid = 1024 // thread blocks of a decode attention at most

	// A layer's decode plan: 16 words of totals, 48 bytes for the run and 16 for the merge
	// item of every thread block, then a 16-byte entry a head and one to end.
	decodePlanHead = 64 + 48*maxGrid + 16*maxGrid
)

// DecodePlanBytes returns the size of one layer's decode plan, the stride of the
// plans in memory.
func DecodePlanBytes(maxDecodes, kvHeads int) int {
	return roundUp(decodePlanHead+16*(maxDecodes*kvHeads+1), 256)
}

// DecodeWorkspaceBytes returns the size of one workspace of [DecodeAttention]
// (it needs two, or three when the number of layers is odd, each set to 0xff
// bytes once: see DecodeAttention.Workspace).
func DecodeWorkspaceBytes(d Device, t PageType, group, headDim int) int {
	slots := 2 * decodeGrid(d, t, headDim)
	return roundUp(slots*group*(StoredHeadDim(headDim)+2)*4, 256)
}

// MaxPrefillItems bounds the work items of a layer's prefill attention: three
// pairs of (query block, query head) of one KV head each, and one more for every cut
// that [PrefillPlan] makes. It is a multiple of 8, so that what follows a word for each
// is aligned.
func MaxPrefillItems(d Device, tiles, prefills, kvHeads, group int) int {
	return roundUp(kvHeads*((tiles*group+2)/3+prefills)+prefillCuts(d), 8)
}

// prefillCuts bounds the cuts of a layer: those between equal runs, one a
// multiprocessor.
func prefillCuts(d Device) int { return max(d.SMs-1, 0) }

// prefillItemBytes is the size of PrefillItem of prefill_items.cuh: a list of pages,
// three members of 16 bytes, and which part it is.
const prefillItemBytes = 80

// prefillHeadBytes is the size of PrefillHead of prefill_items.cuh: totals, and where the
// items of each run end.
const prefillHeadBytes = 64 + 4*1008

// PrefillPlanBytes returns the size of one layer's prefill plan, the stride of
// the plans in memory: a head, then the items.
func PrefillPlanBytes(maxItems int) int { return prefillHeadBytes + prefillItemBytes*maxItems }

// PrefillWorkspaceBytes returns the size of the workspace of [PrefillAttention],
// which must be zeroed once. All launches of a stream share one. maxItems is that of
// MaxPrefillItems.
//
// The workspace begins with the queue and two words an item. Then follow the parts of
// items that are cut, two a cut; for a head of 128 dimensions on 132 multiprocessors
// 27 MB. A part has 64 bytes of counters; and for each of the 32 lanes of 12 warps 16
// bytes of maxima and sums, and StoredHeadDim/2 float32 of accumulators.
func PrefillWorkspaceBytes(d Device, maxItems, headDim int) int {
	part := 64 + 12*32*(16+StoredHeadDim(headDim)/2*4)
	return roundUp(64+8*maxItems+2*prefillCuts(d)*part, 256)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
