package cudakernels

import (
	"testing"

	"pgregory.net/rapid"
)

func TestHeadsAreStoredInThreeSizes(t *testing.T) {
	for headDim, want := range map[int]int{0: 0, 8: 64, 64: 64, 72: 128, 80: 128, 96: 128, 100: 0, 128: 128, 136: 256, 256: 256, 264: 0} {
		if got := StoredHeadDim(headDim); got != want {
			t.Errorf("head_dim %d is stored as %d, want %d", headDim, got, want)
		}
	}
	if got := PageBytes(PagesBF16, 128); got != 32<<10 {
		t.Errorf("a page of head_dim 128 has %d bytes, want 32 KiB", got)
	}
	if got := PageBytes(PagesFP8, 80); got != 16<<10+128 {
		t.Errorf("an e4m3 page of head_dim 80 has %d bytes, want 16 KiB and 128", got)
	}
}

// Tiles are the blocks that the new tokens touch.
func TestTilesCountTheTouchedBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start, n := rapid.IntRange(0, 1000).Draw(t, "start"), rapid.IntRange(0, 500).Draw(t, "n")
		touched := map[int]bool{}
		for p := start; p < start+n; p++ {
			touched[p/BlockTokens] = true
		}
		if got := Tiles(start, n); got != len(touched) {
			t.Errorf("%d tiles, want %d", got, len(touched))
		}
	})
}

// The plan takes the pairs of every KV head of every sequence three at a time, and cuts
// once less than there are multiprocessors.
func TestMaxPrefillItemsBoundsThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kv, group := rapid.IntRange(1, 8).Draw(t, "kv heads"), rapid.IntRange(1, 8).Draw(t, "group")
		tiles := rapid.SliceOfN(rapid.IntRange(1, 40), 1, 10).Draw(t, "tiles")
		sum, items := 0, 0
		for _, n := range tiles {
			sum += n
			items += kv * ((n*group + 2) / 3)
		}
		d := Device{SMs: rapid.IntRange(1, 200).Draw(t, "multiprocessors")}
		items += d.SMs - 1
		if most := MaxPrefillItems(d, sum, len(tiles), kv, group); items > most || most%8 != 0 {
			t.Errorf("%d items, at most %d", items, most)
		}
	})
}

// What a launch holds of an item that is cut is bounded by the multiprocessors, whatever
// the batch.
func TestPrefillWorkspaceIsBoundedByTheDevice(t *testing.T) {
	h100 := Device{Major: 9, SMs: 132}
	for headDim, mib := range map[int]int{64: 14, 128: 27, 256: 51} {
		if got := PrefillWorkspaceBytes(h100, 2000, headDim); got>>20 > mib {
			t.Errorf("head_dim %d: a workspace of %d MiB, want at most %d", headDim, got>>20, mib)
		}
	}
	if got, want := PrefillWorkspaceBytes(h100, 4000, 128)-PrefillWorkspaceBytes(h100, 2000, 128), 8*2000; got < want-256 || got > want+256 {
		t.Errorf("2000 more items take %d bytes, want about %d", got, want)
	}
	if got := PrefillWorkspaceBytes(Device{SMs: 1}, 8, 128); got != 256 {
		t.Errorf("a device that cuts nothing has a workspace of %d bytes, want 256", got)
	}
}
