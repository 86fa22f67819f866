package isa

import (
	"fmt"
	"slices"
	"testing"
)

func TestInstructionSets(t *testing.T) {
	if got := fmt.Sprint(Auto, Generic, AVX2, AVX512, ISA(9)); got != "auto generic avx2 avx512 isa(9)" {
		t.Errorf("names: %s", got)
	}
	if !Generic.Available() || Auto.Resolve() == Auto || Generic.Resolve() != Generic || ISA(9).Resolve() != Auto.Resolve() {
		t.Error("plain Go is always available, and everything resolves to something available")
	}
	all := All()
	if all[0] != Generic || all[len(all)-1] != Auto.Resolve() || !slices.IsSorted(all) {
		t.Errorf("All is %v", all)
	}
}
