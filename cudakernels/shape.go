package cudakernels

const (
	// ropeWarps is the warps of a thread block of rope_append.
	ropeWarps = 4

	// prefillPlanShared is the histogram of prefill_plan, 64 sections of 256
	// lengths; the section of up to 8192 (sequence, KV head) pairs; and for the cuts of up
	// to 1024 items a word a pair and a word an item.
	prefillPlanShared = 64*256*4 + 8192 + 2*1024*4
)

// normThreads gives a thread up to 16 elements of a row, so that the row stays in
// registers between the two passes.
func normThreads(hidden int) int { return min(max(roundUp(hidden/8, 32), 64), 1024) }

// decodeConfig is how the decode attention shares a multiprocessor: thread blocks,
// each with as many pages in its ring.
type decodeConfig struct{ perSM, pages int }

// decodeConfigs are the configurations by type of page and StoredHeadDim. About 128 KiB
// of copies in flight saturate a multiprocessor's share of the memory; more was
// slower. The time of a page is latency rather than bandwidth where pages are small:
// so there are as many thread blocks for e4m3 as registers allow.
var decodeConfigs = map[PageType]map[int]decodeConfig{
	PagesBF16: {64: {3, 2}, 128: {2, 2}, 256: {1, 2}},
	PagesFP8:  {64: {4, 4}, 128: {3, 3}, 256: {2, 2}},
}

func decodePerSM(d Device, t PageType, headDim int) int {
	want := decodeConfigs[t][StoredHeadDim(headDim)].perSM
	return max(1, min(want, d.SharedPerSM/(decodeUsed(d, t, headDim)+1024)))
}

// DecodeStages returns the tiles (the keys or the values of a page) of the ring of
// [DecodeAttention].
func DecodeStages(d Device, t PageType, headDim int) int {
	stages := 2 * decodeConfigs[t][StoredHeadDim(headDim)].pages
	for stages > 2 && stages*t.tileBytes(headDim)+decodeFixed(t, headDim) > d.SharedPerBlock {
		stages -= 2
	}
	return stages
}

// decodeFixed is the shared memory beside the ring: the exchange of scores (two
// buffers of 8 heads by 72), and for every page of the ring barriers, its description,
// its scales and the queries.
func decodeFixed(t PageType, headDim int) int {
	return 2*8*72*4 + decodeConfigs[t][StoredHeadDim(headDim)].pages*(72+8*(StoredHeadDim(headDim)*2+16))
}

func decodeUsed(d Device, t PageType, headDim int) int {
	return DecodeStages(d, t, headDim)*t.tileBytes(headDim) + decodeFixed(t, headDim)
}

// decodeShared pads the shared memory so that not one thread block more fits on a
// multiprocessor than decodePerSM: with a slot left over, a launch that is let in
// early piles up on some multiprocessors.
func decodeShared(d Device, t PageType, headDim int) int {
	next := d.SharedPerSM/(decodePerSM(d, t, headDim)+1)/128*128 - 1024 + 128
	return min(max(decodeUsed(d, t, headDim), next), d.SharedPerBlock)
}

func decodeGrid(d Device, t PageType, headDim int) int {
	return min(d.SMs*decodePerSM(d, t, headDim), maxGrid)
}

func decodeShape(d Device, t PageType, headDim int) Shape {
	return grid(decodeGrid(d, t, headDim), 160, decodeShared(d, t, headDim))
}

// DecodeBlocks returns the thread blocks of [DecodeAttention], which [DecodePlan]
// cuts the work for.
func DecodeBlocks(d Device, t PageType, headDim int) int { return decodeGrid(d, t, headDim) }

// prefillShape returns the persistent grid of the prefill attention. On compute
// capability 9.0 heads of up to 128 dimensions run on a producer and three
// consumer warpgroups with four tiles of keys and of values in flight, before them two
// pages of codes when they are e4m3; elsewhere four warps hold the queries, one tile of
// keys and one of values.
func prefillShape(d Device, t PageType, headDim int) Shape {
	queries := PagesBF16.tileBytes(headDim)
	if d.hopper() && headDim <= 128 {
		shared := (3+4+4)*queries + 2*prefillItemBytes + 16 + 256 + 1024
		if t == PagesFP8 {
			shared += 2 * PageBytes(t, headDim)
		}
		return grid(d.SMs, 512, shared)
	}
	shared := queries + 2*t.tileBytes(headDim) + 16 // and the number of the item
	return grid(d.SMs*max(1, min(4, d.SharedPerSM/(shared+1024))), 128, shared)
}
