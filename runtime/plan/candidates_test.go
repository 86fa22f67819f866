package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPublishedGridHas48Rules checks the survivors of the published filter,
// alpha by alpha: betas are the eighths from lo to hi.
func TestPublishedGridHas48Rules(t *testing.T) {
	want := map[int][2]int{ // alpha: first and last beta, in eighths
		-1024: {5, 8}, 0: {1, 8}, 1024: {0, 7}, 2048: {0, 6}, 3072: {0, 5},
		4096: {0, 4}, 5120: {0, 3}, 6144: {0, 2}, 7168: {0, 1}, 8192: {0, 0},
	}
	got := UpstreamGrid(2048, 8192, 1024).Candidates(2048, 8192, 16384)
	if len(got) != 48 {
		t.Errorf("%d rules, want 48", len(got))
	}
	seen := map[int][]int{}
	for i, r := range got {
		seen[r.Alpha] = append(seen[r.Alpha], int(r.Beta*8))
		if i > 0 && float64(got[i-1].Alpha)+got[i-1].Beta*16384 > float64(r.Alpha)+r.Beta*16384 {
			t.Errorf("rule %d, %+v, comes after a wider one at 16384 tokens", i, r)
		}
	}
	list := map[int][]int{}
	for alpha, ends := range want {
		for b := ends[0]; b <= ends[1]; b++ {
			list[alpha] = append(list[alpha], b)
		}
	}
	if diff := cmp.Diff(list, seen); diff != "" {
		t.Errorf("betas by alpha (-want +got):\n%s", diff)
	}
}

func TestOnlyOneCandidateIsDense(t *testing.T) {
	var dense []Rule
	for _, r := range UpstreamGrid(2048, 8192, 1024).Candidates(2048, 8192, 16384) {
		if r.IsDense() {
			dense = append(dense, r)
		}
	}
	if diff := cmp.Diff([]Rule{Dense}, dense); diff != "" {
		t.Error(diff)
	}
}
