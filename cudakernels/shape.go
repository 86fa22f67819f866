package cudakernels

const (
	// ropeWarps is the heads, one a warp, that a thread block of rope_append has.
	ropeWarps = 4

	// prefillPlanShared is the histogram of prefill_plan, 64 sections of 256
	// lengths, and the section of up to 8192 (sequence, KV head) pairs.
	prefillPlanShared = 64*256*4 + 8192
)

// normThreads gives a thread up to 16 elements of a row, so that the row stays in
// registers between the two passes.
func normThreads(hidden int) int { return min(max(roundUp(hidden/8, 32), 64), 1024) }

// decodePerSM returns how many thread blocks of the decode attention share a
// multiprocessor, and DecodeStages how many tiles (the keys or the values of a
// page) each has in flight. About 128 KiB of copies in flight saturate a
// multiprocessor's share of the memory; more was slower.
func decodePerSM(d Device, headDim int) int {
	want := map[int]int{64: 3, 128: 2, 256: 1}[StoredHeadDim(headDim)]
	return max(1, min(want, d.SharedPerSM/(decodeUsed(d, headDim)+1024)))
}

// DecodeStages returns the tiles of the ring of [DecodeAttention].
func DecodeStages(d Device, headDim int) int {
	if tile := PageBytes(headDim) / 2; 4*tile+decodeFixed(headDim) > d.SharedPerBlock {
		return 2
	}
	return 4
}

// decodeFixed is the shared memory beside the ring: barriers, the exchange of
// scores (two buffers of 8 heads by 72), and the queries of up to two pages.
func decodeFixed(headDim int) int { return 256 + 2*8*72*4 + 2*8*(StoredHeadDim(headDim)*2+16) }

func decodeUsed(d Device, headDim int) int {
	return DecodeStages(d, headDim)*PageBytes(headDim)/2 + decodeFixed(headDim)
}

// decodeShared pads the shared memory so that not one thread block more fits on a
// multiprocessor than decodePerSM: with a slot left over, a launch that is let in
// early piles up on some multiprocessors.
func decodeShared(d Device, headDim int) int {
	next := d.SharedPerSM/(decodePerSM(d, headDim)+1)/128*128 - 1024 + 128
	return min(max(decodeUsed(d, headDim), next), d.SharedPerBlock)
}

func decodeGrid(d Device, headDim int) int {
	return min(d.SMs*decodePerSM(d, headDim), maxGrid)
}

// DecodeBlocks returns the thread blocks of [DecodeAttention], which [DecodePlan]
// cuts the work for.
func DecodeBlocks(d Device, headDim int) int { return decodeGrid(d, headDim) }

// prefillShape returns the persistent grid of the prefill attention. On compute
// capability 9.0 heads of up to 128 dimensions run on a producer and three
// consumer warpgroups with four tiles of keys and of values in flight; elsewhere
// four warps hold the queries, one tile of keys and one of values.
func prefillShape(d Device, headDim int) Shape {
	tile := PageBytes(headDim) / 2
	if d.hopper() && headDim <= 128 {
		return grid(d.SMs, 512, (3+4+4)*tile+144+256+1024)
	}
	shared := 3*tile + 16 // and the number of the item
	return grid(d.SMs*max(1, min(4, d.SharedPerSM/(shared+1024))), 128, shared)
}
